//! `SubstitutionFormatString`: text or JSON log formats.

use outrigger_wire::pb::{
    envoy::config::core::v3::{SubstitutionFormatString, substitution_format_string::Format},
    google::protobuf::{Struct, value::Kind},
};

use super::{at::At, extension, fields::fields, report::Reject, secret::inline_text};
use crate::ir::format::{JsonField, LogFormat, Template};

pub(crate) fn template(source: &str, at: &At<'_>) -> Result<Template, Reject> {
    Template::parse(source).map_err(|e| at.reject(e))
}

pub(crate) fn format(message: &SubstitutionFormatString, at: &At<'_>) -> Result<LogFormat, Reject> {
    fields!(at, message => SubstitutionFormatString {
        read: [formatters, format],
        harmless: [content_type, json_format_options],
        unsupported: [omit_empty_values],
    });
    for (i, formatter) in message.formatters.iter().enumerate() {
        // An operator that a formatter adds is refused where it is used; unused, the formatter does no harm.
        let at = at.index("formatters", i);
        let any = at.required("typed_config", &formatter.typed_config)?;
        at.unsupported(format!("{} adds no operators here", extension::short(&any.type_url)));
    }
    match at.required("format", &message.format)? {
        Format::TextFormat(text) => Ok(LogFormat::Text(template(text, &at.field("text_format"))?)),
        Format::TextFormatSource(source) => {
            let at = at.field("text_format_source");
            let text = std::str::from_utf8(inline_text(source, &at)?).map_err(|_| at.reject("is not UTF-8"))?;
            Ok(LogFormat::Text(template(text, &at)?))
        }
        Format::JsonFormat(fields) => json(fields, &at.field("json_format")),
    }
}

pub(crate) fn json(message: &Struct, at: &At<'_>) -> Result<LogFormat, Reject> {
    Ok(LogFormat::Json(object(message, at)?))
}

fn object(message: &Struct, at: &At<'_>) -> Result<Vec<(Box<str>, JsonField)>, Reject> {
    let mut fields: Vec<(Box<str>, JsonField)> = Vec::with_capacity(message.fields.len());
    for (key, value) in &message.fields {
        let at = at.field(key);
        let field = match &value.kind {
            Some(Kind::StringValue(text)) => JsonField::Value(template(text, &at)?),
            Some(Kind::StructValue(inner)) => JsonField::Object(object(inner, &at)?),
            _ => {
                at.unsupported("only strings and objects are logged");
                continue;
            }
        };
        fields.push((Box::from(key.as_str()), field));
    }
    fields.sort_by(|a, b| a.0.cmp(&b.0));
    Ok(fields)
}
