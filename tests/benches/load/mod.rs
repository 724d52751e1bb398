//! The shared parts of the service benches: a process measured from outside, and a load over
//! kept-alive connections. Knows no question.

use bytes::Bytes;
use http_body_util::{BodyExt as _, Full};
use hyper::client::conn::http1::{SendRequest, handshake};
use hyper::{Method, Request, header};
use hyper_util::rt::TokioIo;
use std::time::{Duration, Instant};
use tokio::net::TcpStream;

/// Resources that a process has used so far.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Usage {
    /// CPU time on all processors, kernel time included.
    pub(crate) cpu: Duration,
    /// Resident memory now, in bytes.
    pub(crate) resident_bytes: u64,
}

impl Usage {
    /// Reads the counters of a process.
    ///
    /// # Panics
    /// If there is no such process.
    pub(crate) fn of(process: u32) -> Self {
        let read = |file: &str| std::fs::read_to_string(format!("/proc/{process}/{file}")).expect("a running process");
        let stat = read("stat");
        // Fields after the name, which may hold anything. User and system time are fields 14 and
        // 15, in ticks of 10 ms.
        let fields: Vec<&str> = stat.rsplit_once(')').expect("a name").1.split_whitespace().collect();
        let ticks: u64 = fields[11..13].iter().map(|ticks| ticks.parse::<u64>().expect("ticks")).sum();
        let status = read("status");
        let resident = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).expect("VmRSS");
        let kib: u64 = resident.trim().trim_end_matches(" kB").parse().expect("a number");
        Self { cpu: Duration::from_millis(10 * ticks), resident_bytes: kib << 10 }
    }
}

/// A question that the load repeats.
#[derive(Debug, Clone)]
pub(crate) struct Ask {
    /// `HOST:PORT`
    pub(crate) address: String,
    /// GET, or POST of this JSON.
    pub(crate) path: String,
    /// JSON; empty for GET.
    pub(crate) body: Bytes,
}

/// A kept-alive connection.
pub(crate) type Sender = SendRequest<Full<Bytes>>;

/// Connects.
///
/// # Panics
/// If no process listens.
pub(crate) async fn connect(address: &str) -> Sender {
    let stream = TcpStream::connect(address).await.expect("it listens");
    stream.set_nodelay(true).expect("a socket");
    let (sender, connection) = handshake(TokioIo::new(stream)).await.expect("HTTP");
    tokio::spawn(connection);
    sender
}

/// Sends one request with these headers, and returns the status and the body.
///
/// # Errors
/// If the connection breaks; the caller needs a new one then.
pub(crate) async fn send(sender: &mut Sender, ask: &Ask, headers: &[(&str, &str)]) -> hyper::Result<(u16, Bytes)> {
    let method = if ask.body.is_empty() { Method::GET } else { Method::POST };
    let request = Request::builder().method(method).uri(&ask.path).header(header::HOST, &ask.address);
    let request = headers.iter().fold(request, |request, (name, value)| request.header(*name, *value));
    let request = request.header(header::CONTENT_TYPE, "application/json").body(Full::new(ask.body.clone()));
    sender.ready().await?;
    let response = sender.send_request(request.expect("a request")).await?;
    let status = response.status().as_u16();
    Ok((status, response.into_body().collect().await?.to_bytes()))
}

impl Ask {
    async fn once(&self, sender: &mut Sender) -> usize {
        let (status, body) = send(sender, self, &[]).await.expect("an answer");
        assert!((200..300).contains(&status), "{} {status}", self.path);
        body.len()
    }

    /// Length of the answer's body, in bytes.
    pub(crate) async fn answer_bytes(&self) -> usize {
        self.once(&mut connect(&self.address).await).await
    }

    /// Repeats the question for a while over some connections, and returns the duration of each
    /// answer.
    pub(crate) async fn load(&self, connections: usize, time: Duration) -> Vec<Duration> {
        let mut senders = Vec::new();
        for _ in 0..connections {
            senders.push(connect(&self.address).await);
        }
        let end = Instant::now() + time;
        let asking = senders.into_iter().map(|mut sender| {
            let ask = self.clone();
            tokio::spawn(async move {
                let mut took = Vec::new();
                while Instant::now() < end {
                    let began = Instant::now();
                    ask.once(&mut sender).await;
                    took.push(began.elapsed());
                }
                took
            })
        });
        let mut all = Vec::new();
        for asked in asking.collect::<Vec<_>>() {
            all.extend(asked.await.expect("no panic"));
        }
        all
    }
}
