//! JSON as D-Bus values and back, without knowing what it means.
//!
//! An integer is `t`, a negative one `x`; a list of strings is `as` (an empty list too), any other `av`; an object is
//! `a{sv}`. What is null has no form on the bus and is left out.

use crate::fault::{Fault, Kind};
use serde_json::{Map, Number, Value as Json};
use std::collections::HashMap;
use zbus::zvariant::{Array, OwnedValue, Value};

/// Named values.
pub(super) type Fields = HashMap<String, OwnedValue>;

/// Returns an object as named values; anything else has none.
pub(super) fn fields(json: &Json) -> Fields {
    let Json::Object(object) = json else {
        return Fields::new();
    };
    let named = object.iter().filter_map(|(name, json)| {
        // Nothing made from JSON holds a descriptor, the only thing that can fail to be copied.
        Some((name.clone(), value(json)?.try_into_owned().ok()?))
    });
    named.collect()
}

fn value(json: &Json) -> Option<Value<'static>> {
    Some(match json {
        Json::Null => return None,
        Json::Bool(is) => Value::from(*is),
        Json::Number(number) => number_value(number),
        Json::String(text) => Value::from(text.clone()),
        Json::Array(list) if list.iter().all(Json::is_string) => {
            let texts = list.iter().filter_map(Json::as_str).map(str::to_owned);
            Value::from(texts.collect::<Vec<_>>())
        }
        Json::Array(list) => Value::from(Array::from(list.iter().filter_map(value).collect::<Vec<_>>())),
        Json::Object(object) => {
            let named = object
                .iter()
                .filter_map(|(name, json)| Some((name.clone(), value(json)?)));
            Value::from(named.collect::<HashMap<_, _>>())
        }
    })
}

fn number_value(number: &Number) -> Value<'static> {
    match (number.as_u64(), number.as_i64()) {
        (Some(number), _) => Value::from(number),
        (None, Some(number)) => Value::from(number),
        (None, None) => Value::from(number.as_f64().unwrap_or(f64::NAN)),
    }
}

/// Returns the value of an option as JSON.
///
/// Fails for what an option cannot be: a number that is none, a descriptor, a key that is no string.
pub(super) fn json(option: &str, value: &Value<'_>) -> Result<Json, Fault> {
    Ok(match value {
        Value::Bool(is) => Json::from(*is),
        Value::U8(number) => Json::from(*number),
        Value::I16(number) => Json::from(*number),
        Value::U16(number) => Json::from(*number),
        Value::I32(number) => Json::from(*number),
        Value::U32(number) => Json::from(*number),
        Value::I64(number) => Json::from(*number),
        Value::U64(number) => Json::from(*number),
        Value::Str(text) => Json::from(text.as_str()),
        Value::Value(inner) => json(option, inner)?,
        Value::Array(list) => Json::Array(
            list.iter()
                .map(|item| json(option, item))
                .collect::<Result<_, _>>()?,
        ),
        Value::Dict(named) => {
            let mut object = Map::new();
            for (name, value) in named.iter() {
                let Value::Str(name) = name else {
                    return Err(unusable(option));
                };
                object.insert(name.to_string(), json(option, value)?);
            }
            Json::Object(object)
        }
        _ => return Err(unusable(option)),
    })
}

fn unusable(option: &str) -> Fault {
    Fault::new(
        Kind::Usage,
        format!("The option `{option}` has a value of a type that no option has"),
    )
    .hint("options are of the types b, s, as, and integers")
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json as of;

    #[test]
    fn what_goes_out_comes_back() {
        let whole = of!({
            "flag": true, "count": 3, "less": -3, "text": "a", "none": [], "list": ["a", "b"],
            "mixed": [1, "b", [true]], "inside": { "a": { "b": 1 } },
        });
        let back: Map<String, Json> = fields(&whole)
            .iter()
            .map(|(name, value)| (name.clone(), json(name, value).unwrap()))
            .collect();
        assert_eq!(Json::Object(back), whole);
        assert_eq!(fields(&of!({ "nothing": null })).len(), 0);
    }

    #[test]
    fn types_are_those_of_the_documentation() {
        let fields = fields(&of!({ "n": 1, "m": -1, "e": [], "l": ["a"], "v": [1], "d": {} }));
        for (name, signature) in [
            ("n", "t"),
            ("m", "x"),
            ("e", "as"),
            ("l", "as"),
            ("v", "av"),
            ("d", "a{sv}"),
        ] {
            assert_eq!(fields[name].value_signature().to_string(), signature, "{name}");
        }
    }

    #[test]
    fn what_is_no_option_is_named() {
        let fault = json("install", &Value::from(1.5)).unwrap_err();
        assert!(fault.message.contains("`install`"), "{fault}");
        let numbered = Value::from(HashMap::from([(1u32, "a")]));
        assert!(json("install", &numbered).is_err());
    }
}
