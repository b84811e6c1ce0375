//! The functions of `wasi:messaging` that a component may call.

use wasmtime::Result;
use wasmtime::component::Resource;

use super::bindings::{producer, request_reply, types};
use super::{Client, Message, RequestOptions};
use crate::bindings::emitter::EmitError;
use crate::state::State;

type Error = types::Error;

/// Why nobody answers.
const NO_REPLIES: &str = "an event has no reply: send one with `producer`, and subscribe to what answers it";

impl From<EmitError> for Error {
    fn from(error: EmitError) -> Self {
        match error {
            EmitError::Denied(reason) => Self::PermissionDenied(reason),
            EmitError::Invalid(reason) | EmitError::TooMuch(reason) | EmitError::Other(reason) => Self::Other(reason),
        }
    }
}

impl State {
    /// Changes a message, and counts what it takes now.
    fn change(&mut self, message: &Resource<Message>, change: impl FnOnce(&mut Message)) -> Result<()> {
        let message = self.table.get_mut(message)?;
        change(message);
        let (before, now) = (message.counted, message.size());
        message.counted = now;
        self.messages.recount(before, now)
    }

    fn take_message(&mut self, message: Resource<Message>) -> Result<Message> {
        let message = self.table.delete(message)?;
        self.messages.recount(message.counted, 0)?;
        Ok(message)
    }
}

impl types::Host for State {}

impl types::HostClient for State {
    fn connect(&mut self, _name: String) -> Result<Result<Resource<Client>, Error>> {
        Ok(self.table.push(Client).map_err(|error| Error::Other(error.to_string())))
    }

    fn disconnect(&mut self, client: Resource<Client>) -> Result<Result<(), Error>> {
        self.table.get(&client)?;
        Ok(Ok(()))
    }

    fn drop(&mut self, client: Resource<Client>) -> Result<()> {
        self.table.delete(client)?;
        Ok(())
    }
}

impl types::HostMessage for State {
    fn new(&mut self, data: Vec<u8>) -> Result<Resource<Message>> {
        let message = self.table.push(Message::default())?;
        self.change(&message, |message| message.data = data.into())?;
        Ok(message)
    }

    fn topic(&mut self, message: Resource<Message>) -> Result<Option<String>> {
        Ok(self.table.get(&message)?.topic.clone())
    }

    fn content_type(&mut self, message: Resource<Message>) -> Result<Option<String>> {
        Ok(self.table.get(&message)?.content_type.clone())
    }

    fn set_content_type(&mut self, message: Resource<Message>, content_type: String) -> Result<()> {
        self.change(&message, |message| message.content_type = Some(content_type))
    }

    fn data(&mut self, message: Resource<Message>) -> Result<Vec<u8>> {
        Ok(self.table.get(&message)?.data.to_vec())
    }

    fn set_data(&mut self, message: Resource<Message>, data: Vec<u8>) -> Result<()> {
        self.change(&message, |message| message.data = data.into())
    }

    fn metadata(&mut self, message: Resource<Message>) -> Result<Option<types::Metadata>> {
        let metadata = &self.table.get(&message)?.metadata;
        Ok((!metadata.is_empty()).then(|| metadata.clone()))
    }

    fn add_metadata(&mut self, message: Resource<Message>, key: String, value: String) -> Result<()> {
        self.change(&message, |message| {
            message.metadata.retain(|(name, _)| *name != key);
            message.metadata.push((key, value));
        })
    }

    fn set_metadata(&mut self, message: Resource<Message>, metadata: types::Metadata) -> Result<()> {
        self.change(&message, |message| message.metadata = metadata)
    }

    fn remove_metadata(&mut self, message: Resource<Message>, key: String) -> Result<()> {
        self.change(&message, |message| message.metadata.retain(|(name, _)| *name != key))
    }

    fn drop(&mut self, message: Resource<Message>) -> Result<()> {
        self.take_message(message).map(drop)
    }
}

impl producer::Host for State {
    fn send(
        &mut self,
        client: Resource<Client>,
        topic: String,
        message: Resource<Message>,
    ) -> Result<Result<(), Error>> {
        self.table.get(&client)?;
        let message = self.take_message(message)?;
        let new = match message.into_new_event(topic) {
            Ok(new) => new,
            Err(reason) => return Ok(Err(Error::Other(reason))),
        };
        let emitted = self.outbox.emit(new, &self.identity.name, &self.identity.grants.emit);
        Ok(emitted.map(drop).map_err(Error::from))
    }
}

impl request_reply::Host for State {
    fn request(
        &mut self,
        _client: Resource<Client>,
        _topic: String,
        _message: Resource<Message>,
        options: Option<Resource<RequestOptions>>,
    ) -> Result<Result<Vec<Resource<Message>>, Error>> {
        if let Some(options) = options {
            self.table.delete(options)?;
        }
        Ok(Err(Error::Other(NO_REPLIES.to_owned())))
    }

    fn reply(&mut self, _reply_to: Resource<Message>, message: Resource<Message>) -> Result<Result<(), Error>> {
        self.take_message(message)?;
        Ok(Err(Error::Other(NO_REPLIES.to_owned())))
    }
}

impl request_reply::HostRequestOptions for State {
    fn new(&mut self) -> Result<Resource<RequestOptions>> {
        Ok(self.table.push(RequestOptions)?)
    }

    fn set_timeout_ms(&mut self, _options: Resource<RequestOptions>, _timeout_ms: u32) -> Result<()> {
        Ok(())
    }

    fn set_expected_replies(&mut self, _options: Resource<RequestOptions>, _expected_replies: u32) -> Result<()> {
        Ok(())
    }

    fn drop(&mut self, options: Resource<RequestOptions>) -> Result<()> {
        self.table.delete(options)?;
        Ok(())
    }
}
