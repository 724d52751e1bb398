//! The bytes of a connection: with TLS or without, watched for the beginning of a head, and looked
//! at for the version of HTTP that the client speaks.
//!
//! It must not decide how long anything may take.

use crate::edge::connections::Connection;
use crate::edge::tls::Tls;
use bytes::{Buf as _, Bytes, BytesMut};
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio_io_timeout::TimeoutWriter;

/// What a client of HTTP/2 sends first (RFC 9113, section 3.4). No request of HTTP/1 begins so.
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
/// Bytes of the first look. Most heads fit, so that one read gets them.
const FIRST_BYTES: usize = 2_048;

/// A version of HTTP.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Version {
    Http1,
    Http2,
}

/// Opens the transport of an accepted connection, and finds the version of HTTP: with TLS by ALPN,
/// and without, or if the client names none, by the first bytes.
///
/// # Errors
/// If the connection ends, or the handshake of TLS fails.
pub(crate) async fn open(
    stream: TcpStream,
    tls: Option<&Tls>,
    write_timeout: Duration,
    connection: Arc<Connection>,
) -> io::Result<(Io, Version)> {
    let mut timed = TimeoutWriter::new(stream);
    timed.set_timeout(Some(write_timeout));
    let watched = Watched { io: Box::pin(timed), connection };
    let Some(tls) = tls else { return sniff(Box::new(watched)).await };
    let stream = tls.acceptor().accept(watched).await?;
    let version = match stream.get_ref().1.alpn_protocol() {
        Some(b"h2") => Version::Http2,
        Some(_) => Version::Http1,
        None => return sniff(Box::new(stream)).await,
    };
    Ok((Io { before: Bytes::new(), io: Box::new(stream) }, version))
}

/// Reads until the bytes differ from the preface of HTTP/2 or hold all of it.
async fn sniff(mut io: Box<dyn Stream>) -> io::Result<(Io, Version)> {
    let mut before = BytesMut::with_capacity(FIRST_BYTES);
    while before.len() < PREFACE.len() && PREFACE.starts_with(&before) {
        if io.read_buf(&mut before).await? == 0 {
            break;
        }
    }
    let version = if before.starts_with(PREFACE) { Version::Http2 } else { Version::Http1 };
    Ok((Io { before: before.freeze(), io }, version))
}

/// A stream in both directions.
trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin> Stream for T {}

/// A socket that tells its connection of arriving bytes.
struct Watched {
    io: Pin<Box<TimeoutWriter<TcpStream>>>,
    connection: Arc<Connection>,
}

/// A transport whose first bytes were read already.
pub(crate) struct Io {
    before: Bytes,
    io: Box<dyn Stream>,
}

impl AsyncRead for Watched {
    fn poll_read(mut self: Pin<&mut Self>, context: &mut Context<'_>, into: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let before = into.filled().len();
        let read = self.io.as_mut().poll_read(context, into);
        if into.filled().len() > before {
            self.connection.received();
        }
        read
    }
}

impl AsyncRead for Io {
    fn poll_read(mut self: Pin<&mut Self>, context: &mut Context<'_>, into: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        if self.before.is_empty() {
            return Pin::new(&mut self.io).poll_read(context, into);
        }
        let count = self.before.len().min(into.remaining());
        into.put_slice(&self.before[..count]);
        self.before.advance(count);
        Poll::Ready(Ok(()))
    }
}

/// Passes writes on to the field `io`.
macro_rules! writes_to_io {
    ($type:ty) => {
        impl AsyncWrite for $type {
            fn poll_write(
                mut self: Pin<&mut Self>,
                context: &mut Context<'_>,
                bytes: &[u8],
            ) -> Poll<io::Result<usize>> {
                Pin::new(&mut self.io).poll_write(context, bytes)
            }

            fn poll_write_vectored(
                mut self: Pin<&mut Self>,
                context: &mut Context<'_>,
                slices: &[io::IoSlice<'_>],
            ) -> Poll<io::Result<usize>> {
                Pin::new(&mut self.io).poll_write_vectored(context, slices)
            }

            fn is_write_vectored(&self) -> bool {
                self.io.is_write_vectored()
            }

            fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
                Pin::new(&mut self.io).poll_flush(context)
            }

            fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
                Pin::new(&mut self.io).poll_shutdown(context)
            }
        }
    };
}

writes_to_io!(Watched);
writes_to_io!(Io);
