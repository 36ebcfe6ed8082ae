//! `xai health`: whether a process answers, for health checks of images that have no shell and no other program.

use std::{
    io::{Read as _, Write as _},
    net::{TcpStream, ToSocketAddrs as _},
    time::Duration,
};

use crate::failure::{Exit, Failure};

/// Longest time for each step.
const PATIENCE: Duration = Duration::from_secs(3);
/// Longest answer that is looked at.
const MAX: u64 = 16 << 10;

/// Asks once, over plain HTTP. Gives what was answered.
///
/// # Errors
/// When nobody answers, or not with success.
pub(crate) fn ask(url: &str) -> Result<String, Failure> {
    let (authority, path) = parts(url).ok_or_else(|| {
        Failure::usage(format!(
            "`{url}` is no address such as http://127.0.0.1:3445/ready"
        ))
    })?;
    let unreachable =
        |why: &dyn std::fmt::Display| Failure::new(Exit::Unreachable, format!("{url}: {why}"));
    let answer = exchange(authority, path).map_err(|error| unreachable(&error))?;
    let (head, body) = answer.split_once("\r\n\r\n").unwrap_or((&answer, ""));
    let status = head.split(' ').nth(1).and_then(|code| code.parse().ok());
    match status {
        Some(200..=299) => Ok(body.trim().to_owned()),
        Some(code) => Err(Failure::failed(format!(
            "{url} answers {code}: {}",
            body.trim()
        ))),
        None::<u16> => Err(unreachable(&"what answers does not speak HTTP")),
    }
}

/// `host:port` and the path.
fn parts(url: &str) -> Option<(&str, &str)> {
    let rest = url.strip_prefix("http://")?;
    let at = rest.find('/').unwrap_or(rest.len());
    let (authority, path) = rest.split_at_checked(at)?;
    let plain = !url.contains(|c: char| c.is_whitespace() || c.is_control());
    let (host, port) = authority.rsplit_once(':')?;
    let whole = plain && !host.is_empty() && port.parse::<u16>().is_ok();
    whole.then_some((authority, if path.is_empty() { "/" } else { path }))
}

fn exchange(authority: &str, path: &str) -> std::io::Result<String> {
    let mut last = std::io::Error::other("the name leads nowhere");
    for address in authority.to_socket_addrs()? {
        let mut stream = match TcpStream::connect_timeout(&address, PATIENCE) {
            Ok(stream) => stream,
            Err(error) => {
                last = error;
                continue;
            }
        };
        stream.set_read_timeout(Some(PATIENCE))?;
        stream.set_write_timeout(Some(PATIENCE))?;
        let request =
            format!("GET {path} HTTP/1.1\r\nhost: {authority}\r\nconnection: close\r\n\r\n");
        stream.write_all(request.as_bytes())?;
        let mut answer = Vec::new();
        stream.take(MAX).read_to_end(&mut answer)?;
        return Ok(String::from_utf8_lossy(&answer).into_owned());
    }
    Err(last)
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;

    use super::*;

    #[test]
    fn an_address_is_read_in_parts() {
        let check = |url: &str, want: Option<(&str, &str)>| assert_eq!(parts(url), want, "{url}");
        check(
            "http://127.0.0.1:3445/ready",
            Some(("127.0.0.1:3445", "/ready")),
        );
        check("http://[::1]:1", Some(("[::1]:1", "/")));
        for wrong in [
            "https://a:1/",
            "http://a/",
            "http://:1/",
            "a:1",
            "http://a:1/\r\nx",
        ] {
            check(wrong, None);
        }
    }

    #[test]
    fn only_success_is_healthy() {
        let check = |answer: &'static str, exit: Option<Exit>| {
            let listener = TcpListener::bind("127.0.0.1:0").unwrap();
            let address = listener.local_addr().unwrap();
            let server = std::thread::spawn(move || {
                let (mut stream, _) = listener.accept().unwrap();
                let mut request = [0; 512];
                let _what_it_was = stream.read(&mut request).unwrap();
                stream.write_all(answer.as_bytes()).unwrap();
            });
            let asked = ask(&format!("http://{address}/ready"));
            assert_eq!(asked.err().map(|failure| failure.exit), exit, "{answer}");
            server.join().unwrap();
        };
        check("HTTP/1.1 200 OK\r\n\r\nready\n", None);
        check(
            "HTTP/1.1 503 Service Unavailable\r\n\r\n",
            Some(Exit::Failed),
        );
        check("SSH-2.0-x\r\n", Some(Exit::Unreachable));
        let closed = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = closed.local_addr().unwrap();
        drop(closed);
        let asked = ask(&format!("http://{address}/")).unwrap_err();
        assert_eq!(asked.exit, Exit::Unreachable);
    }
}
