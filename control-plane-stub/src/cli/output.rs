//! In which form an answer is printed.

use clap::ValueEnum;
use serde::Serialize;

use super::table::offer;

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub(super) enum Output {
    /// For people.
    #[default]
    #[value(alias = "text")]
    Table,
    Json,
    Yaml,
}

/// Prints an answer; `table` makes what people read of it.
pub(super) fn emit<T: Serialize>(answer: &T, output: Output, table: impl FnOnce() -> String) -> anyhow::Result<()> {
    show(answer, output, table).map(drop)
}

/// The same; `false`: the reader has seen enough.
pub(super) fn show<T: Serialize>(answer: &T, output: Output, table: impl FnOnce() -> String) -> anyhow::Result<bool> {
    let text = match output {
        Output::Table => table(),
        Output::Json => format!("{}\n", serde_json::to_string_pretty(answer)?),
        Output::Yaml => yaml(answer)?,
    };
    Ok(offer(&text)?)
}

fn yaml<T: Serialize>(answer: &T) -> anyhow::Result<String> {
    let mut text = serde_saphyr::to_string(answer)?;
    if !text.ends_with('\n') {
        text.push('\n');
    }
    Ok(text)
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    #[test]
    fn yaml_says_the_same_as_json() {
        let value = json!({"a": [1, {"b": "x: y"}], "c": null, "d": "true", "e": true});
        let text = super::yaml(&value).unwrap();
        let back: Value = serde_saphyr::from_str(&text).unwrap();
        assert_eq!(back, value, "{text}");
    }
}
