//! Values and their fields: a JSON object's top-level names are the fields of a secret.

use keymoat_core::names::Field;
use keymoat_core::secret::{MAX_JSON_DEPTH, ValueKind, check_fields, check_value};
use keymoat_crypto::{SecretBytes, Sensitive};
use serde_json::{Map, Value};

use crate::VaultError;

/// A value as it is written.
pub enum NewValue {
    /// The whole value.
    Whole {
        /// What it is.
        kind: ValueKind,
        /// The value.
        value: SecretBytes,
    },
    /// Fields of a JSON object, each as text.
    Fields(Vec<(Field, SecretBytes)>),
}

/// A whole value that keeps the limits.
pub(crate) struct WholeValue {
    pub(crate) kind: ValueKind,
    pub(crate) value: SecretBytes,
}

impl NewValue {
    /// The whole value to store; fields are put over those of `old`.
    pub(crate) fn over(&self, old: Option<&WholeValue>) -> Result<WholeValue, VaultError> {
        let whole = match self {
            NewValue::Whole { kind, value } => WholeValue { kind: *kind, value: value.duplicate() },
            NewValue::Fields(fields) => with_fields(old, fields)?,
        };
        whole.check()?;
        Ok(whole)
    }
}

impl WholeValue {
    /// The fields with their values as text; the nameless whole where there are none.
    pub(crate) fn fields(&self) -> Result<Vec<(Option<Field>, SecretBytes)>, VaultError> {
        if self.kind != ValueKind::Json {
            return Ok(vec![(None, self.value.duplicate())]);
        }
        object(&self.value)?
            .into_iter()
            .map(|(name, value)| Ok((Some(name.parse::<Field>()?), text_of(value))))
            .collect()
    }

    /// One field's value as text, or the whole for none; `None` when there is no such field.
    pub(crate) fn field(&self, wanted: Option<&Field>) -> Result<Option<SecretBytes>, VaultError> {
        let Some(wanted) = wanted else { return Ok(Some(self.value.duplicate())) };
        if self.kind != ValueKind::Json {
            return Ok(None);
        }
        Ok(object(&self.value)?.remove(wanted.as_str()).map(text_of))
    }

    /// Whether both hold the same; how a JSON object is laid out does not count.
    pub(crate) fn is_same_as(&self, other: &Self) -> Result<bool, VaultError> {
        if self.kind != other.kind {
            return Ok(false);
        }
        let (own, others) = (self.fields()?, other.fields()?);
        let same = |((field, value), (known, stored)): (&(_, SecretBytes), &(_, SecretBytes))| {
            field == known && value.ct_eq(stored)
        };
        Ok(own.len() == others.len() && own.iter().zip(&others).all(same))
    }

    fn check(&self) -> Result<(), VaultError> {
        check_value(self.value.len()).map_err(too_large)?;
        match self.kind {
            ValueKind::Bytes => Ok(()),
            // EXPOSE: only whether it is UTF-8 leaves.
            ValueKind::Text => match self.value.expose(|bytes| std::str::from_utf8(bytes).is_ok()) {
                true => Ok(()),
                false => Err(VaultError::invalid("the value is not UTF-8 text").hint("store it as bytes")),
            },
            ValueKind::Json => {
                let object = object(&self.value)?;
                check_fields(object.len()).map_err(too_large)?;
                for (name, value) in &object {
                    name.parse::<Field>()?;
                    check_depth(value, 1)?;
                }
                Ok(())
            }
        }
    }
}

fn with_fields(old: Option<&WholeValue>, fields: &[(Field, SecretBytes)]) -> Result<WholeValue, VaultError> {
    let mut map = match old {
        None => Map::new(),
        Some(old) if old.kind == ValueKind::Json => object(&old.value)?,
        Some(_) => {
            return Err(VaultError::invalid(
                "the stored value has no fields, so one cannot be set beside it",
            )
            .hint("write the whole value, or use --replace to store fields in its place"));
        }
    };
    for (name, value) in fields {
        // EXPOSE: the field's text goes into the JSON object that is encrypted next.
        let text = value.expose(|bytes| std::str::from_utf8(bytes).map(str::to_owned));
        let text =
            text.map_err(|_| VaultError::invalid(format!("the value of field `{name}` is not UTF-8 text")))?;
        map.insert(name.to_string(), Value::String(text));
    }
    Ok(WholeValue {
        kind: ValueKind::Json,
        value: Sensitive::new(Value::Object(map).to_string().into_bytes()),
    })
}

/// Reads a JSON object; the error never repeats any of it.
fn object(value: &SecretBytes) -> Result<Map<String, Value>, VaultError> {
    // EXPOSE: the fields are taken apart; each goes back into the secret type.
    let parsed = value.expose(|bytes| serde_json::from_slice::<Value>(bytes));
    match parsed {
        Ok(Value::Object(map)) => Ok(map),
        Ok(_) => Err(VaultError::invalid("the value is JSON but not an object, so it has no fields")
            .hint("store it as text")),
        Err(error) => Err(VaultError::invalid(format!(
            "the value is not JSON: line {}, column {}",
            error.line(),
            error.column()
        ))),
    }
}

fn text_of(value: Value) -> SecretBytes {
    let text = match value {
        Value::String(text) => text,
        other => other.to_string(),
    };
    Sensitive::new(text.into_bytes())
}

fn check_depth(value: &Value, depth: usize) -> Result<(), VaultError> {
    if depth > MAX_JSON_DEPTH {
        return Err(VaultError::invalid(format!(
            "the value is nested more than {MAX_JSON_DEPTH} levels deep"
        )));
    }
    match value {
        Value::Array(items) => items.iter().try_for_each(|item| check_depth(item, depth + 1)),
        Value::Object(map) => map.values().try_for_each(|item| check_depth(item, depth + 1)),
        _ => Ok(()),
    }
}

fn too_large(error: keymoat_core::secret::LimitError) -> VaultError {
    VaultError::new(crate::Code::TooLarge, error.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn secret(text: &str) -> SecretBytes {
        SecretBytes::from_slice(text.as_bytes())
    }

    fn json(text: &str) -> WholeValue {
        WholeValue { kind: ValueKind::Json, value: secret(text) }
    }

    fn text(value: &SecretBytes) -> String {
        // EXPOSE: a made-up value in a test.
        value.expose(|bytes| String::from_utf8(bytes.clone()).unwrap())
    }

    #[test]
    fn fields_go_over_those_that_are_there() {
        let old = json(r#"{"a":"1","deep":{"b":[2]}}"#);
        let new = NewValue::Fields(vec![
            ("a".parse().unwrap(), secret("one")),
            ("c".parse().unwrap(), secret("3")),
        ]);
        let whole = new.over(Some(&old)).unwrap();
        assert_eq!(text(&whole.value), r#"{"a":"one","c":"3","deep":{"b":[2]}}"#);
        assert_eq!(text(&whole.field(Some(&"deep".parse().unwrap())).unwrap().unwrap()), r#"{"b":[2]}"#);
        assert!(whole.field(Some(&"nothing".parse().unwrap())).unwrap().is_none());
    }

    #[test]
    fn wrong_values_are_refused_without_being_repeated() {
        #[track_caller]
        fn check(kind: ValueKind, value: &[u8], says: &str) {
            let new = NewValue::Whole { kind, value: SecretBytes::from_slice(value) };
            let error = new.over(None).err().unwrap();
            assert!(error.message.contains(says), "{error}");
            assert!(!error.message.contains("hush"), "{error}");
        }
        check(ValueKind::Text, b"hush\xff", "not UTF-8");
        check(ValueKind::Json, b"{\"hush", "line 1");
        check(ValueKind::Json, b"[\"hush\"]", "not an object");
        check(ValueKind::Json, b"{\"not a field!\":\"hush\"}", "field");
        check(ValueKind::Bytes, &vec![0; 65 * 1024], "at most");
        let deep = format!("{{\"a\":{}{}}}", "[".repeat(40), "]".repeat(40));
        check(ValueKind::Json, deep.as_bytes(), "nested");
    }
}
