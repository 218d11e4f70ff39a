//! One step of the script: a request, and what of its answer is waited for and remembered.

use std::fmt;
use std::io;

use bytes::{BufMut, Bytes, BytesMut};
use kafka_protocol::messages::{ApiKey, ResponseHeader};
use kafka_protocol::protocol::{Decodable, Encodable, Request};

use super::known::{Known, Missing};
use super::value::Value;
use crate::wire;

/// As whom the script speaks; member ids begin with it.
const CLIENT_ID: &str = "differential";
/// The connection of steps that name none.
const MAIN: &str = "main";

/// How a step goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Step {
    /// Sends and takes the answer.
    Ask,
    /// Sends only; the answer is taken by a later step.
    Begin,
    /// Takes the answer to an earlier request.
    Finish,
    /// Sends what is not answered, and looks whether the connection is still open.
    Unanswered,
}

type Encode = Box<dyn Fn(&Known, &mut BytesMut) -> Result<(), Unsent>>;

/// Why a request could not be made.
#[derive(Debug, thiserror::Error)]
pub(super) enum Unsent {
    #[error(transparent)]
    Missing(#[from] Missing),
    #[error("it cannot be written: {0}")]
    Encode(String),
    #[error("it cannot be sent: {0}")]
    Io(#[from] io::Error),
}

/// One step of the script.
pub(super) struct Case {
    pub(super) name: String,
    pub(super) api: ApiKey,
    pub(super) version: i16,
    pub(super) step: Step,
    pub(super) connection: String,
    /// The value at each of these paths is remembered under a name.
    pub(super) kept: Vec<(String, String)>,
    /// The request is repeated until each of these paths has this value.
    pub(super) until: Vec<(String, String)>,
    encode: Encode,
    decode: fn(Bytes, ApiKey, i16) -> Result<Value, String>,
    answer_version: i16,
}

impl fmt::Debug for Case {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?} v{} {:?}", self.api, self.version, self.name)
    }
}

impl Case {
    fn new<R: Request>(name: &str, version: i16, step: Step, encode: Encode) -> Self
    where
        R::Response: fmt::Debug,
    {
        Self {
            name: name.to_owned(),
            api: ApiKey::try_from(R::KEY).expect("every request of the library has one of its keys"),
            version,
            step,
            connection: MAIN.to_owned(),
            kept: Vec::new(),
            until: Vec::new(),
            encode,
            decode: decode::<R::Response>,
            answer_version: version,
        }
    }

    /// Uses another connection than most.
    pub(super) fn on(mut self, connection: &str) -> Self {
        connection.clone_into(&mut self.connection);
        self
    }

    /// Remembers what stands at a path of the answer, if it does.
    pub(super) fn keep(mut self, name: &str, path: &str) -> Self {
        self.kept.push((name.to_owned(), path.to_owned()));
        self
    }

    /// Asks again and again until that stands at a path of the answer.
    pub(super) fn until(mut self, path: &str, value: &str) -> Self {
        self.until.push((path.to_owned(), value.to_owned()));
        self
    }

    /// Only sends: a later [`finish`] on the same connection takes the answer.
    pub(super) fn begin(mut self) -> Self {
        self.step = Step::Begin;
        self
    }

    /// No answer is due.
    pub(super) fn unanswered(mut self) -> Self {
        self.step = Step::Unanswered;
        self
    }

    /// The answer comes in another version than the request's.
    pub(super) fn answered_in(mut self, version: i16) -> Self {
        self.answer_version = version;
        self
    }

    /// The bytes to send.
    pub(super) fn request(&self, known: &Known, correlation_id: i32) -> Result<Bytes, Unsent> {
        let mut body = BytesMut::new();
        (self.encode)(known, &mut body)?;
        let mut framed = wire::framed_as(CLIENT_ID, self.api, self.version, |buffer| {
            buffer.put(body);
            Ok(())
        })?;
        framed[wire::CORRELATION_ID_AT..wire::CORRELATION_ID_AT + 4]
            .copy_from_slice(&correlation_id.to_be_bytes());
        Ok(framed.freeze())
    }

    /// Reads the answer.
    pub(super) fn answer(&self, bytes: Bytes) -> Result<Value, String> {
        (self.decode)(bytes, self.api, self.answer_version)
    }
}

/// A step that sends a request and takes the answer.
pub(super) fn ask<R: Request + 'static>(name: &str, version: i16, request: R) -> Case
where
    R::Response: fmt::Debug,
{
    let encode: Encode = Box::new(move |_, buffer| encoded(&request, buffer, version));
    Case::new::<R>(name, version, Step::Ask, encode)
}

/// The same for a request that says what an earlier answer told.
pub(super) fn ask_with<R: Request>(
    name: &str,
    version: i16,
    request: impl Fn(&Known) -> Result<R, Missing> + 'static,
) -> Case
where
    R::Response: fmt::Debug,
{
    let encode: Encode = Box::new(move |known, buffer| encoded(&request(known)?, buffer, version));
    Case::new::<R>(name, version, Step::Ask, encode)
}

/// The same for a body that the library would not write.
pub(super) fn ask_bytes<R: Request>(name: &str, version: i16, body: Vec<u8>) -> Case
where
    R::Response: fmt::Debug,
{
    let encode: Encode = Box::new(move |_, buffer| {
        buffer.put(&body[..]);
        Ok(())
    });
    Case::new::<R>(name, version, Step::Ask, encode)
}

/// A step that takes the answer to what was begun on a connection.
pub(super) fn finish<R: Request>(name: &str, version: i16, connection: &str) -> Case
where
    R::Response: fmt::Debug,
{
    Case::new::<R>(name, version, Step::Finish, Box::new(|_, _| Ok(()))).on(connection)
}

fn encoded(request: &impl Encodable, buffer: &mut BytesMut, version: i16) -> Result<(), Unsent> {
    request.encode(buffer, version).map_err(|error| Unsent::Encode(format!("{error:#}")))
}

fn decode<T: Decodable + fmt::Debug>(mut bytes: Bytes, api: ApiKey, version: i16) -> Result<Value, String> {
    ResponseHeader::decode(&mut bytes, api.response_header_version(version))
        .map_err(|error| format!("its header cannot be read: {error:#}"))?;
    let response = T::decode(&mut bytes, version).map_err(|error| format!("it cannot be read: {error:#}"))?;
    if !bytes.is_empty() {
        return Err(format!("{} bytes follow it", bytes.len()));
    }
    Value::from_debug(&format!("{response:?}"))
}

#[cfg(test)]
mod tests {
    use kafka_protocol::messages::{HeartbeatRequest, HeartbeatResponse};

    use super::*;

    #[test]
    fn an_answer_is_read_to_its_end() {
        let case = ask("case", 4, HeartbeatRequest::default());
        let mut bytes = BytesMut::new();
        bytes.put_i32(0);
        bytes.put_u8(0);
        HeartbeatResponse::default().with_error_code(25).encode(&mut bytes, 4).unwrap();
        let answer = case.answer(bytes.clone().freeze()).unwrap();
        assert_eq!(answer.at("error_code").and_then(Value::number), Some(25));
        bytes.put_u8(0);
        assert_eq!(case.answer(bytes.freeze()), Err("1 bytes follow it".into()));
    }

    #[test]
    fn what_nobody_told_is_not_sent() {
        let case =
            ask_with(
                "case",
                4,
                |known| Ok(HeartbeatRequest::default().with_member_id(known.text("member")?)),
            );
        assert!(matches!(case.request(&Known::default(), 1), Err(Unsent::Missing(_))));
        let mut known = Known::default();
        known.keep("member", Value::Text("somebody".into()));
        let bytes = case.request(&known, 0x0102_0304).unwrap();
        assert_eq!(bytes[wire::CORRELATION_ID_AT..][..4], [1, 2, 3, 4]);
        assert!(bytes.windows(8).any(|part| part == b"somebody"));
    }
}
