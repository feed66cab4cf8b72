//! What a scripted upstream does: plain data, one [`Reply`] for each request that arrives.

use std::time::Duration;

use super::wire::Fields;

/// How one request is answered.
#[derive(Clone, Debug)]
pub(crate) struct Reply {
    /// Before the head of the answer.
    pub(crate) delay: Duration,
    /// Answers without waiting for the end of the request's body.
    pub(crate) early: bool,
    /// Informational answers that go before.
    pub(crate) interim: Vec<(u16, Fields)>,
    pub(crate) act: Act,
}

#[derive(Clone, Debug)]
pub(crate) enum Act {
    Answer(Answer),
    /// HTTP/1: these bytes, then the end of the connection.
    Raw(Vec<u8>),
    /// The connection ends without an answer.
    Close,
    /// The connection (HTTP/1) or the stream (HTTP/2, with this code) is reset.
    Reset(u32),
    /// Never answers.
    Hang,
    /// HTTP/1: switches protocols and echoes.
    Switch(&'static str),
}

#[derive(Clone, Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) fields: Fields,
    /// Parts with the time before each; no part at all stands for the host's name.
    pub(crate) parts: Vec<(Duration, Vec<u8>)>,
    pub(crate) bodiless: bool,
    pub(crate) trailers: Fields,
    pub(crate) chunked: bool,
    pub(crate) end: AnswerEnd,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum AnswerEnd {
    Complete,
    /// HTTP/1: complete, then the connection is closed as announced.
    CompleteAndClose,
    /// The connection ends in mid-body.
    Cut,
    /// Reset in mid-body.
    Reset,
    /// The body never ends.
    Hang,
}

fn act(act: Act) -> Reply {
    Reply { delay: Duration::ZERO, early: false, interim: Vec::new(), act }
}

/// An answer with a status; its body names the host.
pub(crate) fn status(status: u16) -> Reply {
    act(Act::Answer(Answer {
        status,
        fields: Vec::new(),
        parts: Vec::new(),
        bodiless: matches!(status, 204 | 304),
        trailers: Vec::new(),
        chunked: false,
        end: AnswerEnd::Complete,
    }))
}

pub(crate) fn ok() -> Reply {
    status(200)
}

/// A gRPC answer that consists of its trailers only.
pub(crate) fn grpc(code: u8) -> Reply {
    ok().no_body().header("content-type", "application/grpc").header("grpc-status", &code.to_string())
}

/// A gRPC answer with one empty message and its status in the trailers.
pub(crate) fn grpc_message(code: u8) -> Reply {
    ok().header("content-type", "application/grpc").part(0, "\0\0\0\0\0").trailer("grpc-status", &code.to_string())
}

pub(crate) fn hang() -> Reply {
    act(Act::Hang)
}

pub(crate) fn close() -> Reply {
    act(Act::Close)
}

pub(crate) fn reset() -> Reply {
    act(Act::Reset(8))
}

/// HTTP/2: a stream error with this code.
pub(crate) fn reset_with(code: u32) -> Reply {
    act(Act::Reset(code))
}

pub(crate) fn raw(bytes: &str) -> Reply {
    act(Act::Raw(bytes.as_bytes().to_vec()))
}

pub(crate) fn switch(protocol: &'static str) -> Reply {
    act(Act::Switch(protocol))
}

impl Reply {
    fn answer(mut self, change: impl FnOnce(&mut Answer)) -> Self {
        match &mut self.act {
            Act::Answer(answer) => change(answer),
            other => panic!("{other:?} is no answer"),
        }
        self
    }

    pub(crate) fn header(self, name: &str, value: &str) -> Self {
        self.answer(|a| a.fields.push((name.to_owned(), value.to_owned())))
    }

    pub(crate) fn body(self, text: &str) -> Self {
        self.part(0, text)
    }

    /// A further part of the body, `ms` after the one before.
    pub(crate) fn part(self, ms: u64, text: &str) -> Self {
        self.answer(|a| a.parts.push((Duration::from_millis(ms), text.as_bytes().to_vec())))
    }

    pub(crate) fn bytes(self, bytes: Vec<u8>) -> Self {
        self.answer(|a| a.parts.push((Duration::ZERO, bytes)))
    }

    pub(crate) fn no_body(self) -> Self {
        self.answer(|a| a.bodiless = true)
    }

    pub(crate) fn trailer(self, name: &str, value: &str) -> Self {
        self.answer(|a| {
            a.chunked = true;
            a.trailers.push((name.to_owned(), value.to_owned()));
        })
    }

    pub(crate) fn chunked(self) -> Self {
        self.answer(|a| a.chunked = true)
    }

    pub(crate) fn then(self, end: AnswerEnd) -> Self {
        self.answer(|a| a.end = end)
    }

    /// The head of the answer comes `ms` after the request.
    pub(crate) fn after(mut self, ms: u64) -> Self {
        self.delay = Duration::from_millis(ms);
        self
    }

    pub(crate) fn early(mut self) -> Self {
        self.early = true;
        self
    }

    pub(crate) fn interim(mut self, status: u16, fields: &[(&str, &str)]) -> Self {
        let fields = fields.iter().map(|(n, v)| ((*n).to_owned(), (*v).to_owned())).collect();
        self.interim.push((status, fields));
        self
    }
}

/// The replies of a host by path; the last of a list goes on for ever, an empty one is `200`.
#[derive(Clone, Debug, Default)]
pub(crate) struct Plan {
    pub(crate) otherwise: Vec<Reply>,
    pub(crate) by_path: Vec<(&'static str, Vec<Reply>)>,
}

/// Replies to the requests of each path, in the order of arrival.
pub(crate) fn plan(replies: impl IntoIterator<Item = Reply>) -> Plan {
    Plan { otherwise: replies.into_iter().collect(), by_path: Vec::new() }
}

impl Plan {
    pub(crate) fn on(mut self, path: &'static str, replies: impl IntoIterator<Item = Reply>) -> Self {
        self.by_path.push((path, replies.into_iter().collect()));
        self
    }

    /// The reply to the `n`th request of a path.
    pub(crate) fn reply(&self, path: &str, n: usize) -> Reply {
        let list = self.by_path.iter().find(|(p, _)| *p == path).map_or(&self.otherwise, |(_, list)| list);
        list.get(n).or(list.last()).cloned().unwrap_or_else(ok)
    }
}

/// What listens on a host's port.
#[derive(Clone, Debug)]
pub(crate) enum Serve {
    Http1(Plan),
    Http2(Plan),
    /// Says the first text when connected, then echoes what it hears in capitals, and ends when the peer ends.
    Tcp(&'static str),
    /// HTTP/2: once a request arrived, these bytes, then the end.
    Bytes(Vec<u8>),
    /// Nothing: connections are refused.
    Nothing,
    /// Connections are neither accepted nor refused.
    BlackHole,
}
