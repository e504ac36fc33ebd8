//! Metrics for people: a row a stage, a column a measure.

use serde_json::{Map, Value};

use crate::style::Style;
use crate::table::{Rows, Tone, number};

/// The numbers of some stages. Measures that are no single number (a confusion matrix) are left out.
pub fn table(style: Style, stages: &[(String, Map<String, Value>)]) -> String {
    let mut names: Vec<&str> = Vec::new();
    for (_, values) in stages {
        for (name, value) in values {
            if value.is_number() && !names.contains(&name.as_str()) {
                names.push(name);
            }
        }
    }
    let headers: Vec<String> = names.iter().map(|name| format!(">{name}")).collect();
    let columns: Vec<&str> = std::iter::once("metrics")
        .chain(headers.iter().map(String::as_str))
        .collect();
    let mut rows = Rows::new(style, &columns);
    for (stage, values) in stages {
        let numbers: Vec<String> = names
            .iter()
            .map(|name| {
                let value = values.get(*name).and_then(Value::as_f64);
                value.map(number).unwrap_or_default()
            })
            .collect();
        let cells = std::iter::once((stage.as_str(), Tone::Plain))
            .chain(numbers.iter().map(|text| (text.as_str(), Tone::Plain)));
        rows.row(cells);
    }
    rows.finish()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::style::When;

    #[test]
    fn stages_with_different_measures_share_a_table() {
        let object = |value: Value| value.as_object().cloned().unwrap_or_default();
        let stages = [
            (
                "scores".to_owned(),
                object(json!({"accuracy": 0.95, "confusion_matrix": {"labels": []}})),
            ),
            (
                "others".to_owned(),
                object(json!({"accuracy": 1.0, "mcc": -0.25})),
            ),
        ];
        insta::assert_snapshot!(table(Style::stdout(When::Never), &stages), @r"
        metrics  accuracy      mcc
        scores     0.9500
        others          1  -0.2500
        ");
    }
}
