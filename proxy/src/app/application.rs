//! Whether the application is gone: nobody listens on its ports any more.
//!
//! Asked of the kernel's tables; a connection would be noticed by the application.

use std::{
    fs::File,
    io::{BufRead, BufReader},
    time::{Duration, Instant},
};

/// How long nobody may listen before an application that was there counts as ended: it may be restarting.
const GONE: Duration = Duration::from_secs(5);

/// The state of a socket that listens, in the tables.
const LISTEN: &str = "0A";

/// The application beside the proxy.
#[derive(Debug, Default)]
pub(super) struct Application {
    ports: Vec<u16>,
    /// It listened once.
    seen: bool,
    gone_since: Option<Instant>,
}

impl Application {
    /// Without ports nothing is known of it.
    pub(super) fn new(ports: &[u16]) -> Self {
        Self { ports: ports.to_vec(), ..Self::default() }
    }

    /// Looks, if there is anything to look for. True when it is gone for so long that the proxy has nothing left to do.
    pub(super) fn look(&mut self, now: Instant) -> bool {
        if self.ports.is_empty() {
            return false;
        }
        let listens = ["/proc/net/tcp", "/proc/net/tcp6"].into_iter().any(|table| {
            // No table, no sockets of that family.
            File::open(table).is_ok_and(|file| listens(BufReader::new(file), &self.ports))
        });
        self.judge(listens, now)
    }

    fn judge(&mut self, listens: bool, now: Instant) -> bool {
        if listens {
            (self.seen, self.gone_since) = (true, None);
            return false;
        }
        self.seen && now >= *self.gone_since.get_or_insert(now) + GONE
    }

    /// Whether it may still call somebody.
    pub(super) fn may_call(&self) -> bool {
        !self.ports.is_empty() && self.gone_since.is_none() && self.seen
    }
}

/// Whether a table has one that listens on any of `ports`. Listening sockets come first in it, so that thousands of
/// connections behind them are never read.
fn listens(table: impl BufRead, ports: &[u16]) -> bool {
    let rows = table.lines().skip(1).map_while(Result::ok);
    let mut listening = rows.map_while(|row| {
        let mut columns = row.split_ascii_whitespace().skip(1);
        let (local, state) = (columns.next()?, columns.nth(1)?);
        let port = u16::from_str_radix(local.rsplit_once(':')?.1, 16).ok()?;
        (state == LISTEN).then_some(port)
    });
    listening.any(|port| ports.contains(&port))
}

#[cfg(test)]
mod tests {
    use super::*;

    const TABLE: &str = "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode\n   \
                         0: 00000000:1F90 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 1 1 0 100 0 0 10 0\n   \
                         1: 0100007F:2378 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 2 1 0 100 0 0 10 0\n   \
                         2: 0100007F:0050 0100007F:C350 01 00000000:00000000 00:00000000 00000000     0        0 3 1 0 100 0 0 10 0\n";

    #[test]
    fn listening_ports_are_read_from_the_tables() {
        let on = |ports: &[u16]| listens(TABLE.as_bytes(), ports);
        assert!(on(&[8080]) && on(&[1, 9080]));
        assert!(!on(&[80]), "connected, not listening");
        assert!(!on(&[1]) && !on(&[]));
        for broken in ["", "x", "a\nb c\n", "a\n 0: 0:zz 1 0A\n"] {
            assert!(!listens(broken.as_bytes(), &[8080]), "{broken}");
        }
        let socket = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let mut application = Application::new(&[socket.local_addr().unwrap().port()]);
        let now = Instant::now();
        assert!(!application.look(now) && application.may_call());
        drop(socket);
        assert!(!application.look(now) && !application.may_call());
        assert!(application.look(now + GONE));
    }

    #[test]
    fn an_application_may_be_late_and_may_restart() {
        let mut application = Application::new(&[1]);
        let start = Instant::now();
        let at = |seconds| start + Duration::from_secs(seconds);
        assert!(!application.judge(false, at(0)) && !application.judge(false, at(100)), "it was never there");
        assert!(!application.judge(true, at(101)));
        assert!(!application.judge(false, at(102)) && !application.judge(false, at(106)));
        assert!(!application.judge(true, at(107)), "it is back");
        assert!(!application.judge(false, at(108)));
        assert!(application.judge(false, at(113)));
        let mut unknown = Application::new(&[]);
        assert!(!unknown.look(start) && !unknown.may_call());
    }
}
