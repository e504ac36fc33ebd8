//! What a schema's metadata says of its columns: the names of classes, as the `datasets` library writes
//! them under the key `huggingface`.

use arrow_schema::{DataType, Field, Schema};
use serde_json::{Value, json};

/// The key of the schema's metadata.
pub const METADATA_KEY: &str = "huggingface";

/// The columns of a table as `{"info": {"features": …}}` describes them.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Features {
    /// In the order of the columns.
    columns: Vec<(String, Value)>,
}

impl Features {
    /// What the schema's metadata says; where it says nothing of a column, what its type says.
    pub fn of(schema: &Schema) -> Self {
        let described: Option<Value> = schema
            .metadata()
            .get(METADATA_KEY)
            .and_then(|text| serde_json::from_str(text).ok());
        let described = described
            .as_ref()
            .and_then(|value| value.get("info")?.get("features"));
        let columns = schema
            .fields()
            .iter()
            .map(|field| {
                let feature = described
                    .and_then(|features| features.get(field.name()))
                    .filter(|feature| feature.is_object() || feature.is_array())
                    .cloned()
                    .unwrap_or_else(|| by_type(field));
                (field.name().clone(), feature)
            })
            .collect();
        Self { columns }
    }

    /// The names of the classes 0, 1, … of a column, where it has them.
    pub fn class_names(&self, column: &str) -> Option<Vec<String>> {
        let (_, feature) = self.columns.iter().find(|(name, _)| name == column)?;
        if feature.get("_type")?.as_str()? != "ClassLabel" {
            return None;
        }
        feature
            .get("names")?
            .as_array()?
            .iter()
            .map(|name| Some(name.as_str()?.to_owned()))
            .collect()
    }

    /// The same, with these names for the classes of `column`.
    #[must_use]
    pub fn with_classes(mut self, column: &str, names: &[String]) -> Self {
        let label = json!({ "names": names, "_type": "ClassLabel" });
        match self.columns.iter_mut().find(|(name, _)| name == column) {
            Some((_, feature)) => *feature = label,
            None => self.columns.push((column.to_owned(), label)),
        }
        self
    }

    /// The same, with what `other` says of `column`.
    #[must_use]
    pub fn with_column_of(mut self, other: &Self, column: &str) -> Self {
        let described = other.columns.iter().find(|(name, _)| name == column);
        let own = self.columns.iter_mut().find(|(name, _)| name == column);
        if let (Some((_, own)), Some((_, described))) = (own, described) {
            *own = described.clone();
        }
        self
    }

    /// `schema` with this description as its only metadata, and none at its fields.
    pub fn describe(&self, schema: &Schema) -> Schema {
        let fields: Vec<Field> = schema
            .fields()
            .iter()
            .map(|field| Field::new(field.name(), field.data_type().clone(), field.is_nullable()))
            .collect();
        Schema::new(fields).with_metadata([(METADATA_KEY.to_owned(), self.to_json())])
    }

    /// The one form of a schema that is written: everything but the features is left out.
    pub fn canonical(schema: &Schema) -> Schema {
        Self::of(schema).describe(schema)
    }

    /// Written by hand, so that columns and keys have one order, whatever features `serde_json` is built with.
    fn to_json(&self) -> String {
        let columns: Vec<String> = self
            .columns
            .iter()
            .map(|(name, feature)| format!("{}: {}", Value::from(name.as_str()), ordered(feature)))
            .collect();
        format!("{{\"info\": {{\"features\": {{{}}}}}}}", columns.join(", "))
    }
}

/// JSON with `_type` last and other keys ascending, as `datasets` writes its simple features.
fn ordered(value: &Value) -> String {
    match value {
        Value::Object(fields) => {
            let mut fields: Vec<_> = fields.iter().collect();
            fields.sort_by_key(|(name, _)| (name.as_str() == "_type", name.as_str()));
            let fields: Vec<String> = fields
                .into_iter()
                .map(|(name, value)| format!("{}: {}", Value::from(name.as_str()), ordered(value)))
                .collect();
            format!("{{{}}}", fields.join(", "))
        }
        Value::Array(items) => {
            let items: Vec<String> = items.iter().map(ordered).collect();
            format!("[{}]", items.join(", "))
        }
        other => other.to_string(),
    }
}

fn by_type(field: &Field) -> Value {
    let dtype = match field.data_type() {
        DataType::List(item) => return json!({ "feature": by_type(item), "_type": "List" }),
        DataType::LargeList(item) => {
            return json!({ "feature": by_type(item), "_type": "LargeList" });
        }
        DataType::FixedSizeList(item, length) => {
            return json!({ "feature": by_type(item), "length": length, "_type": "List" });
        }
        DataType::Struct(fields) => {
            return fields
                .iter()
                .map(|field| (field.name().clone(), by_type(field)))
                .collect::<serde_json::Map<_, _>>()
                .into();
        }
        DataType::Utf8 => "string".to_owned(),
        DataType::LargeUtf8 => "large_string".to_owned(),
        DataType::Binary => "binary".to_owned(),
        DataType::LargeBinary => "large_binary".to_owned(),
        DataType::Boolean => "bool".to_owned(),
        DataType::Null => "null".to_owned(),
        other => other.to_string().to_lowercase(),
    };
    json!({ "dtype": dtype, "_type": "Value" })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn schema() -> Schema {
        Schema::new(vec![
            Field::new("text", DataType::Utf8, true),
            Field::new("label", DataType::Int64, true),
        ])
    }

    #[test]
    fn is_written_as_the_datasets_library_writes_it() {
        let names = ["neg".to_owned(), "pos".to_owned()];
        let described = Features::of(&schema())
            .with_classes("label", &names)
            .describe(&schema());
        insta::assert_snapshot!(described.metadata()[METADATA_KEY], @r#"{"info": {"features": {"text": {"dtype": "string", "_type": "Value"}, "label": {"names": ["neg", "pos"], "_type": "ClassLabel"}}}}"#);
        assert_eq!(
            Features::of(&described).class_names("label"),
            Some(names.to_vec())
        );
        assert_eq!(Features::of(&described).class_names("text"), None);
        assert_eq!(Features::canonical(&described), described);
    }

    #[test]
    fn metadata_that_is_no_json_is_no_description() {
        let odd = schema().with_metadata([(METADATA_KEY.to_owned(), "{".to_owned())]);
        assert_eq!(Features::of(&odd), Features::of(&schema()));
    }
}
