//! Short of memory or descriptors, a proxy gives up TCP connections that idle, and no others.

use std::{io::Read, net::TcpStream};

use super::testing::{Rig, echo_server, echoes, until};
use crate::{
    l7::Pressure,
    live::testing::{cluster, statics, tcp_listener},
    worker::Command,
};

const ACCESS_LOG: &str = "stat_prefix: t, access_log: [{name: f, typed_config: {'@type': \
                          type.googleapis.com/envoy.extensions.access_loggers.file.v3.FileAccessLog, path: PATH, \
                          log_format: {text_format_source: {inline_string: \"%RESPONSE_FLAGS% %CONNECTION_TERMINATION_DETAILS%\\n\"}}}}]";

/// Whether the peer has ended the connection, in order.
fn is_over(stream: &mut TcpStream) -> bool {
    stream.set_nonblocking(true).unwrap();
    let over = match stream.read(&mut [0]) {
        Ok(0) => true,
        Ok(_) => panic!("bytes out of nothing"),
        Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => false,
        Err(error) => panic!("not closed but broken: {error}"),
    };
    stream.set_nonblocking(false).unwrap();
    over
}

#[test]
fn idle_connections_end_in_order_and_busy_ones_go_on() {
    let log = tempfile::NamedTempFile::new().unwrap();
    let mut rig = Rig::new(1, None);
    let listener = tcp_listener("l", "127.0.0.1", 0, "c", "");
    let listener = listener.replace("stat_prefix: t", &ACCESS_LOG.replace("PATH", &log.path().display().to_string()));
    rig.apply(&statics(&[listener], &[cluster("c", echo_server())]));
    let mut busy = rig.connect("l");
    let mut idle: Vec<TcpStream> = (0..12).map(|_| rig.connect("l")).collect();
    idle.iter_mut().for_each(|stream| echoes(stream, "for now"));
    echoes(&mut busy, "busy");
    rig.sockets().tell(|| Command::Pressure(Pressure::Tight));
    let closed = |rig: &Rig| rig.stat("tcp", "t", "downstream_cx_overload_close");
    until("the first ones are closed", || {
        echoes(&mut busy, "busy");
        closed(&rig) > 0
    });
    assert!(closed(&rig) <= 4, "not all at once");
    until("all that idle are closed", || {
        echoes(&mut busy, "busy");
        closed(&rig) == 12
    });
    idle.iter_mut().for_each(|stream| until("it hears of it", || is_over(stream)));
    rig.sockets().tell(|| Command::Pressure(Pressure::None));
    echoes(&mut busy, "and goes on");
    let mut new = rig.connect("l");
    echoes(&mut new, "and so do new ones");
    assert_eq!(closed(&rig), 12);
    let lines = || std::fs::read_to_string(log.path()).unwrap();
    until("they are logged", || lines().lines().count() == 12);
    assert!(lines().lines().all(|line| line.starts_with("OM ")), "{}", lines());
}
