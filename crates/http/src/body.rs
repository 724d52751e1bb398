//! Reads the body of a request within its limits: size, time, speed, and the bytes that its caller
//! may hold at once.
//!
//! It must not know what a body means.

use crate::edge::budget::Held;
use crate::edge::caller::Caller;
use crate::edge::limits::{Limits, SLOW_BODY_AFTER};
use crate::problem::{Code, Problem};
use axum::body::HttpBody as _;
use axum::extract::Request;
use axum::http::header;
use bytes::{Bytes, BytesMut};
use std::future::poll_fn;
use std::pin::Pin;
use std::time::Duration;
use tokio::time::{Instant, timeout_at};

/// How much of an oversized body is read and dropped, bytes. A client that writes before it reads
/// can then see the answer.
const DISCARD_BYTES_MAX: usize = 8 << 20;

/// A whole body, and the part of the budget of bodies that it holds.
pub(crate) struct ReadBody {
    pub(crate) bytes: Bytes,
    /// To be kept for as long as the bytes are.
    pub(crate) held: Held,
}

/// Reads a whole body within the limits. It takes the bytes from the caller's share as they arrive.
/// Up to [`DISCARD_BYTES_MAX`] of a body that is too large are read and dropped before the refusal,
/// whose detail ends with `split`: how to send the same in smaller bodies.
///
/// # Errors
/// The problem to answer with: the body is too large, too late, too slow or incomplete, or the
/// service holds too many bytes already.
pub(crate) async fn read_body(
    request: Request,
    caller: &Caller,
    limits: &Limits,
    split: &str,
) -> Result<ReadBody, Problem> {
    let (parts, mut body) = request.into_parts();
    let max = limits.body_bytes_max;
    let too_large = || Problem::new(Code::TooLarge).detail(format!("a body may have at most {max} bytes: {split}"));
    let announced =
        parts.headers.get(header::CONTENT_LENGTH).and_then(|value| value.to_str().ok()?.parse::<u64>().ok());
    let refuse_unread = |announced: u64| {
        announced > max as u64 && (parts.headers.contains_key(header::EXPECT) || announced > DISCARD_BYTES_MAX as u64)
    };
    if announced.is_some_and(refuse_unread) {
        return Err(too_large());
    }
    let mut held = limits.budgets.body_bytes.acquire(caller, 0)?;
    let (began, mut whole, mut seen) = (Instant::now(), BytesMut::new(), 0_usize);
    loop {
        let frame = poll_fn(|context| Pin::new(&mut body).poll_frame(context));
        let (due, is_of_speed) = due(began, seen, limits);
        let Ok(frame) = timeout_at(due, frame).await else {
            let problem = Problem::new(Code::RequestTimeout);
            return Err(if is_of_speed {
                let least = limits.body_bytes_per_s_min;
                problem.detail(format!(
                    "a body must have at least {least} bytes per second after 5 s: http.body_bytes_per_s_min"
                ))
            } else {
                problem
            });
        };
        let Some(frame) = frame else { break };
        let frame = frame.map_err(|_| Problem::invalid("", "the body is incomplete"))?;
        let Some(data) = frame.data_ref() else { continue };
        seen += data.len();
        if seen <= max {
            held.grow(data.len() as u64)?;
            whole.extend_from_slice(data);
        } else if seen > DISCARD_BYTES_MAX {
            break;
        }
    }
    if seen > max { Err(too_large()) } else { Ok(ReadBody { bytes: whole.freeze(), held }) }
}

/// Returns the time by which the next bytes of a body must arrive, and whether its speed decides
/// that.
fn due(began: Instant, seen: usize, limits: &Limits) -> (Instant, bool) {
    let whole = began + limits.request_timeout;
    if limits.body_bytes_per_s_min == 0 {
        return (whole, false);
    }
    let paid = Duration::from_secs_f64(seen as f64 / limits.body_bytes_per_s_min as f64);
    let next = began + SLOW_BODY_AFTER + paid;
    if next < whole { (next, true) } else { (whole, false) }
}
