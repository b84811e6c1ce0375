//! An event's data, and how it becomes a typed value.

use serde::Serialize;
use serde::de::value::UnitDeserializer;
use serde::de::{DeserializeOwned, IntoDeserializer};

/// Data of an event, or the result of a handler.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Payload {
    /// Valid UTF-8.
    Text(String),
    /// Any bytes.
    Binary(Vec<u8>),
}

impl Payload {
    /// A value as JSON text.
    ///
    /// # Errors
    /// When the value's `Serialize` fails, or a map has keys that are not strings.
    pub fn from_json(value: &(impl Serialize + ?Sized)) -> serde_json::Result<Self> {
        serde_json::to_string(value).map(Self::Text)
    }

    /// The bytes, whichever kind they are.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        match self {
            Self::Text(text) => text.as_bytes(),
            Self::Binary(bytes) => bytes,
        }
    }

    /// The payload as text, if it is valid UTF-8.
    #[must_use]
    pub fn as_text(&self) -> Option<&str> {
        match self {
            Self::Text(text) => Some(text),
            Self::Binary(bytes) => std::str::from_utf8(bytes).ok(),
        }
    }

    /// Decodes JSON.
    ///
    /// # Errors
    /// [`DataError::Unreadable`], which names the place that does not fit.
    pub fn json<T: DeserializeOwned>(&self) -> Result<T, DataError> {
        let mut json = serde_json::Deserializer::from_slice(self.as_bytes());
        let value = serde_path_to_error::deserialize(&mut json)
            .map_err(|error| DataError::unreadable(&error.path().to_string(), error.inner()))?;
        json.end().map_err(|error| DataError::unreadable(".", &error))?;
        Ok(value)
    }
}

impl From<String> for Payload {
    fn from(text: String) -> Self {
        Self::Text(text)
    }
}

impl From<&str> for Payload {
    fn from(text: &str) -> Self {
        Self::Text(text.to_owned())
    }
}

impl From<Vec<u8>> for Payload {
    fn from(bytes: Vec<u8>) -> Self {
        Self::Binary(bytes)
    }
}

/// Why an event's data is not what the handler reads. A handler that is given such an event rejects it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DataError {
    /// The event has no data, and the handler's type has no value for that.
    #[error("data: missing")]
    Missing,
    /// The data is malformed, or of another shape than the handler's type.
    #[error("{path}: {reason}")]
    Unreadable {
        /// Where, such as `data.items[2].price`.
        path: String,
        /// What is wrong there.
        reason: String,
    },
}

impl DataError {
    fn unreadable(path: &str, error: &serde_json::Error) -> Self {
        let path = match path {
            "." => "data".to_owned(),
            index if index.starts_with('[') => format!("data{index}"),
            field => format!("data.{field}"),
        };
        Self::Unreadable { path, reason: error.to_string() }
    }

    /// Adds the media type, when it explains why the data is not JSON.
    fn of_type(self, datacontenttype: Option<&str>) -> Self {
        match (self, datacontenttype) {
            (Self::Unreadable { path, reason }, Some(media_type)) if !media_type.contains("json") => {
                Self::Unreadable { path, reason: format!("{reason} (datacontenttype is {media_type})") }
            }
            (error, _) => error,
        }
    }
}

/// What the data of an [`Event<T>`](crate::Event) can be decoded into: [`Raw`], and every type that serde deserializes,
/// which is read as JSON. An event without data reads like JSON's `null`: an `Option` is `None`, a struct is an error.
#[diagnostic::on_unimplemented(
    message = "an event's data cannot be decoded into `{Self}`",
    note = "derive `serde::Deserialize` for it, or take `Event<gristmill_sdk::Raw>`"
)]
pub trait FromPayload: Sized {
    /// Decodes the data of an event.
    ///
    /// # Errors
    /// When there is none, or it does not fit the type.
    fn from_payload(data: Option<Payload>, datacontenttype: Option<&str>) -> Result<Self, DataError>;
}

impl<T: DeserializeOwned> FromPayload for T {
    fn from_payload(data: Option<Payload>, datacontenttype: Option<&str>) -> Result<Self, DataError> {
        match data {
            Some(data) => data.json().map_err(|error| error.of_type(datacontenttype)),
            None => {
                let nothing: UnitDeserializer<serde::de::value::Error> = ().into_deserializer();
                T::deserialize(nothing).map_err(|_| DataError::Missing)
            }
        }
    }
}

/// An event's data as it came, if it has any: `Event<Raw>` accepts every event.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Raw(pub Option<Payload>);

impl Raw {
    /// The bytes; none at all if the event has no data.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        self.0.as_ref().map_or(&[], Payload::as_bytes)
    }

    /// The data as text, if there is any and it is valid UTF-8.
    #[must_use]
    pub fn as_text(&self) -> Option<&str> {
        self.0.as_ref().and_then(Payload::as_text)
    }

    /// Decodes JSON.
    ///
    /// # Errors
    /// When there is no data, or it does not fit the type.
    pub fn json<T: DeserializeOwned>(&self) -> Result<T, DataError> {
        self.0.as_ref().ok_or(DataError::Missing)?.json()
    }
}

impl FromPayload for Raw {
    fn from_payload(data: Option<Payload>, _datacontenttype: Option<&str>) -> Result<Self, DataError> {
        Ok(Self(data))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, PartialEq, serde::Deserialize)]
    struct Item {
        price: u32,
    }

    #[derive(Debug, PartialEq, serde::Deserialize)]
    struct Order {
        items: Vec<Item>,
    }

    fn read<T: FromPayload>(json: &str) -> Result<T, String> {
        T::from_payload(Some(json.into()), None).map_err(|error| error.to_string())
    }

    fn place(json: &str) -> String {
        read::<Order>(json).unwrap_err()
    }

    #[test]
    fn an_error_names_the_place() {
        assert_eq!(read(r#"{"items":[{"price":1}]}"#), Ok(Order { items: vec![Item { price: 1 }] }));
        let error = place(r#"{"items":[{"price":1},{"price":"x"}]}"#);
        assert!(error.starts_with(r#"data.items[1].price: invalid type: string "x", expected u32"#), "{error}");
        let error = place(r#"{"items":[{}]}"#);
        assert!(error.starts_with("data.items[0]: missing field `price`"), "{error}");
        let error = place(r#"{"items":[{"price":1}"#);
        assert!(error.starts_with("data.items: EOF while parsing a list at line 1 column"), "{error}");
        assert!(place("{}").starts_with("data: missing field `items`"));
        assert!(place(r#"{"items":[]} x"#).starts_with("data: trailing characters"));
        assert!(read::<Vec<u32>>("[1,true]").unwrap_err().starts_with("data[1]: invalid type"));
    }

    #[test]
    fn a_media_type_that_is_not_json_is_named() {
        let error = Order::from_payload(Some("price;1".into()), Some("text/csv")).unwrap_err().to_string();
        assert!(error.ends_with("(datacontenttype is text/csv)"), "{error}");
    }

    #[test]
    fn no_data_is_none_or_an_error() {
        assert_eq!(Order::from_payload(None, None), Err(DataError::Missing));
        assert_eq!(u32::from_payload(None, None), Err(DataError::Missing));
        assert_eq!(Option::<Order>::from_payload(None, None), Ok(None));
        assert_eq!(serde_json::Value::from_payload(None, None), Ok(serde_json::Value::Null));
        assert_eq!(Raw::from_payload(None, None), Ok(Raw(None)));
        assert_eq!(Raw(None).json::<u32>(), Err(DataError::Missing));
    }

    #[test]
    fn raw_data_is_left_alone() {
        let raw = Raw::from_payload(Some(vec![0xff, 0].into()), Some("image/png")).unwrap();
        assert_eq!((raw.as_bytes(), raw.as_text()), (&[0xff, 0][..], None));
        assert_eq!(Raw(Some("7".into())).json(), Ok(7));
    }
}
