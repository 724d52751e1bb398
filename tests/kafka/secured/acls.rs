//! Grants rights as `kafka-acls.sh` would: reads its commands, and asks the broker for them in
//! Kafka's protocol (CreateAcls, version 1), because a Java process for each would take seconds.
//!
//! It knows no part of the service.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;

/// A right: operation, kind of resource, name.
pub(super) type Acl = (String, String, String);

/// Reads a printed command; returns its principal and its rights.
pub(super) fn parsed(command: &str) -> (String, Vec<Acl>) {
    let mut words = command.split_whitespace();
    assert_eq!(words.next(), Some("kafka-acls.sh"), "{command}");
    let (mut principal, mut operations, mut resource) = (String::new(), Vec::new(), None);
    while let Some(word) = words.next() {
        let mut value = || words.next().expect("a value").to_owned();
        match word {
            "--add" => {}
            "--bootstrap-server" => drop(value()),
            "--allow-principal" => principal = value(),
            "--operation" => operations.push(value()),
            "--topic" | "--group" => resource = Some((word.trim_start_matches('-').to_owned(), value())),
            other => panic!("{other} of {command}"),
        }
    }
    let (kind, name) = resource.expect("a resource");
    (principal, operations.into_iter().map(|operation| (operation, kind.clone(), name.clone())).collect())
}

/// Grants rights to a user, as an administrator at a listener without authentication.
pub(super) fn grant(bootstrap: &str, principal: &str, rights: &[Acl]) {
    let mut body = i32::try_from(rights.len()).expect("few").to_be_bytes().to_vec();
    let text = |body: &mut Vec<u8>, text: &str| {
        body.extend(i16::try_from(text.len()).expect("short").to_be_bytes());
        body.extend(text.as_bytes());
    };
    for (operation, kind, name) in rights {
        body.push(match kind.as_str() {
            "topic" => 2,
            "group" => 3,
            other => panic!("{other}"),
        });
        text(&mut body, name);
        // LITERAL.
        body.push(3);
        text(&mut body, principal);
        text(&mut body, "*");
        body.push(match operation.as_str() {
            "Read" => 3,
            "Write" => 4,
            "Create" => 5,
            "Describe" => 8,
            "DescribeConfigs" => 10,
            other => panic!("{other}"),
        });
        // ALLOW.
        body.push(3);
    }
    // API 30, version 1, correlation 1, no client id.
    let mut request = vec![0, 30, 0, 1, 0, 0, 0, 1, 0xFF, 0xFF];
    request.extend(body);
    let mut stream = TcpStream::connect(bootstrap).expect("the broker");
    stream.write_all(&u32::try_from(request.len()).expect("short").to_be_bytes()).expect("sent");
    stream.write_all(&request).expect("sent");
    let mut size = [0; 4];
    stream.read_exact(&mut size).expect("an answer");
    let mut answer = vec![0; u32::from_be_bytes(size) as usize];
    stream.read_exact(&mut answer).expect("an answer");
    // Correlation, throttle time, a count, then a code and a sentence for each right.
    let mut rest = &answer[12..];
    for right in rights {
        let code = i16::from_be_bytes([rest[0], rest[1]]);
        assert_eq!(code, 0, "{right:?}");
        let length = i16::from_be_bytes([rest[2], rest[3]]).max(0);
        rest = &rest[4 + usize::try_from(length).expect("positive")..];
    }
}
