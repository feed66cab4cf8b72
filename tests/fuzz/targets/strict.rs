//! HTTP/1 read as strictly as it can be: what the proxy says must not leave any room for two opinions.

/// How a body is framed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Framing {
    None,
    Length(u64),
    Chunked,
    /// Until the connection ends.
    Close,
}

/// A head, as far as framing goes.
#[derive(Debug)]
pub(super) struct Head {
    pub(super) size: usize,
    pub(super) framing: Framing,
    /// Of a request.
    pub(super) method: String,
    /// Of a response.
    pub(super) status: u16,
    pub(super) upgrade: bool,
}

const MOST: usize = 300;

/// A request at the beginning of `bytes`; `None` if it is not all there. Panics if it is none.
pub(super) fn request(bytes: &[u8]) -> Option<Head> {
    let mut headers = [httparse::EMPTY_HEADER; MOST];
    let mut request = httparse::Request::new(&mut headers);
    let size = match request.parse(bytes) {
        Ok(httparse::Status::Complete(size)) => size,
        Ok(httparse::Status::Partial) => return None,
        Err(error) => panic!("no request ({error}): {}", bytes.escape_ascii()),
    };
    let method = request.method.unwrap_or_default().to_owned();
    let target = request.path.unwrap_or_default();
    assert_eq!(request.version, Some(1), "{}", bytes.escape_ascii());
    assert!(target.bytes().all(|b| b > b' ' && b != 0x7f), "a target with blanks: {}", bytes.escape_ascii());
    assert!(target.starts_with('/') || target == "*" || method == "CONNECT", "no target: {}", bytes.escape_ascii());
    let fields = Fields::of(request.headers, bytes);
    assert!(fields.hosts == 1, "{} hosts: {}", fields.hosts, bytes.escape_ascii());
    let framing = match (fields.length, fields.chunked) {
        (None, false) => Framing::None,
        (Some(length), false) => Framing::Length(length),
        (None, true) => Framing::Chunked,
        (Some(_), true) => unreachable!("refused above"),
    };
    Some(Head { size, framing, method, status: 0, upgrade: fields.upgrade })
}

/// A response at the beginning of `bytes`, to a request of that method; `None` if it is not all there.
pub(super) fn response(bytes: &[u8], to: &str) -> Option<Head> {
    let mut headers = [httparse::EMPTY_HEADER; MOST];
    let mut response = httparse::Response::new(&mut headers);
    let size = match response.parse(bytes) {
        Ok(httparse::Status::Complete(size)) => size,
        Ok(httparse::Status::Partial) => return None,
        Err(error) => panic!("no response ({error}): {}", bytes.escape_ascii()),
    };
    let status = response.code.unwrap_or_default();
    assert!((100..=999).contains(&status), "{}", bytes.escape_ascii());
    let fields = Fields::of(response.headers, bytes);
    let bodiless = to == "HEAD" || matches!(status, 100..=199 | 204 | 304);
    let framing = match (fields.length, fields.chunked) {
        _ if bodiless => Framing::None,
        (Some(length), _) => Framing::Length(length),
        (None, true) => Framing::Chunked,
        (None, false) => Framing::Close,
    };
    Some(Head { size, framing, method: String::new(), status, upgrade: fields.upgrade })
}

#[derive(Default)]
struct Fields {
    length: Option<u64>,
    chunked: bool,
    hosts: usize,
    upgrade: bool,
}

impl Fields {
    fn of(headers: &[httparse::Header<'_>], whole: &[u8]) -> Self {
        let mut fields = Self::default();
        for header in headers {
            let value = header.value;
            assert!(!value.iter().any(|b| matches!(b, 0 | b'\r' | b'\n')), "{}", whole.escape_ascii());
            match header.name.to_ascii_lowercase().as_str() {
                "host" => fields.hosts += 1,
                "upgrade" => fields.upgrade = true,
                "content-length" => {
                    assert!(fields.length.is_none(), "two lengths: {}", whole.escape_ascii());
                    let digits = !value.is_empty() && value.iter().all(u8::is_ascii_digit);
                    let length = std::str::from_utf8(value).ok().filter(|_| digits).and_then(|text| text.parse().ok());
                    fields.length = Some(length.unwrap_or_else(|| panic!("no length: {}", whole.escape_ascii())));
                }
                "transfer-encoding" => {
                    assert!(!fields.chunked, "two encodings: {}", whole.escape_ascii());
                    assert_eq!(value, b"chunked", "{}", whole.escape_ascii());
                    fields.chunked = true;
                }
                _ => {}
            }
        }
        assert!(fields.length.is_none() || !fields.chunked, "two framings: {}", whole.escape_ascii());
        fields
    }
}

/// The size of a body at the beginning of `bytes`, framing included; `None` if it is not all there.
pub(super) fn body(framing: Framing, bytes: &[u8]) -> Option<usize> {
    match framing {
        Framing::None => Some(0),
        Framing::Length(length) => usize::try_from(length).ok().filter(|length| bytes.len() >= *length),
        Framing::Chunked => chunks(bytes),
        Framing::Close => Some(bytes.len()),
    }
}

fn chunks(bytes: &[u8]) -> Option<usize> {
    let mut at = 0;
    loop {
        let line = line(&bytes[at..])?;
        let size = std::str::from_utf8(line).ok().filter(|l| l.bytes().all(|b| b.is_ascii_hexdigit()));
        let size = size.and_then(|text| usize::from_str_radix(text, 16).ok());
        let size = size.unwrap_or_else(|| panic!("no size of a chunk: {}", line.escape_ascii()));
        at += line.len() + 2;
        if size == 0 {
            break;
        }
        let end = bytes.get(at + size..at + size + 2)?;
        assert_eq!(end, b"\r\n", "a chunk without an end");
        at += size + 2;
    }
    loop {
        let trailer = line(&bytes[at..])?;
        at += trailer.len() + 2;
        if trailer.is_empty() {
            return Some(at);
        }
        assert!(trailer.contains(&b':'), "no trailer: {}", trailer.escape_ascii());
    }
}

fn line(bytes: &[u8]) -> Option<&[u8]> {
    bytes.windows(2).position(|pair| pair == b"\r\n").map(|end| &bytes[..end])
}
