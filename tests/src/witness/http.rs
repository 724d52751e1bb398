//! An HTTP client for a process that may die at any moment. Returns errors to its caller and never
//! repeats a request.

use crate::TIMEOUT;
use std::io::{self, BufRead, BufReader, Error, ErrorKind, Read, Write};
use std::net::TcpStream;

/// The answer of a service.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answer {
    /// The status code.
    pub status: u16,
    /// The body, whole.
    pub body: String,
}

/// One connection, which stays open and is made again after an error.
pub struct Client {
    address: String,
    stream: Option<BufReader<TcpStream>>,
}

impl Client {
    /// A client of the service at `HOST:PORT`; connects with the first request.
    #[must_use]
    pub fn new(address: &str) -> Self {
        Self { address: address.to_owned(), stream: None }
    }

    /// Sends a GET. With a token, the service answers once everything before the token is folded.
    ///
    /// # Errors
    /// If the connection breaks before the answer is whole.
    pub fn get(&mut self, tenant: &str, path: &str, token: Option<&str>) -> io::Result<Answer> {
        let headers = token.map(|token| {
            format!(
                "Receipts-Min-Position: {token}
Receipts-Wait-Ms: 30000
"
            )
        });
        self.request("GET", tenant, path, &headers.unwrap_or_default(), "")
    }

    /// Sends JSON.
    ///
    /// # Errors
    /// If the connection breaks before the answer is whole.
    pub fn post(&mut self, tenant: &str, path: &str, json: &str) -> io::Result<Answer> {
        self.request("POST", tenant, path, "Content-Type: application/json\r\n", json)
    }

    fn request(&mut self, method: &str, tenant: &str, path: &str, headers: &str, json: &str) -> io::Result<Answer> {
        let mut stream = match self.stream.take() {
            Some(stream) => stream,
            None => {
                let stream = TcpStream::connect(&self.address)?;
                stream.set_nodelay(true)?;
                stream.set_read_timeout(Some(TIMEOUT))?;
                BufReader::new(stream)
            }
        };
        let request = format!(
            "{method} {path} HTTP/1.1\r\nHost: {}\r\nReceipts-Tenant: {tenant}\r\nContent-Length: {}\r\n{headers}\r\n\
             {json}",
            self.address,
            json.len()
        );
        stream.get_mut().write_all(request.as_bytes())?;
        let answer = read(&mut stream)?;
        self.stream = Some(stream);
        Ok(answer)
    }
}

fn read(stream: &mut BufReader<TcpStream>) -> io::Result<Answer> {
    let broken = || Error::from(ErrorKind::UnexpectedEof);
    let mut line = String::new();
    stream.read_line(&mut line)?;
    let status = line.split(' ').nth(1).and_then(|status| status.parse().ok()).ok_or_else(broken)?;
    let mut length = None;
    loop {
        line.clear();
        if stream.read_line(&mut line)? == 0 {
            return Err(broken());
        }
        let Some((name, value)) = line.trim_end().split_once(':') else { break };
        if name.eq_ignore_ascii_case("content-length") {
            length = value.trim().parse().ok();
        }
    }
    let mut body = vec![0; length.ok_or_else(broken)?];
    stream.read_exact(&mut body)?;
    Ok(Answer { status, body: String::from_utf8(body).map_err(|error| Error::new(ErrorKind::InvalidData, error))? })
}
