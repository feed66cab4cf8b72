//! The header mutation filter.

use outrigger_wire::pb::{
    envoy::{
        config::{
            common::mutation_rules::v3::{HeaderMutation as PbMutation, header_mutation::Action},
            core::v3::{KeyValueAppend, KeyValueMutation, key_value_append::KeyValueAppendAction},
        },
        extensions::filters::http::header_mutation::v3::Mutations as Pb,
    },
    google::protobuf::value::Kind,
};

use super::{
    at::At,
    fields::fields,
    format_string::template,
    header_ops, matcher,
    report::Reject,
    scalar::{enumeration, not_empty},
};
use crate::ir::{
    filters::{Mutation, Mutations, QueryMutation},
    route::AppendAction,
};

pub(crate) fn mutations(message: &Pb, at: &At<'_>) -> Result<Mutations, Reject> {
    fields!(at, message => Pb {
        read: [
            request_mutations, query_parameter_mutations, response_mutations, response_trailers_mutations,
            request_trailers_mutations,
        ],
    });
    Ok(Mutations {
        request: list("request_mutations", &message.request_mutations, true, at)?,
        query: at.each("query_parameter_mutations", &message.query_parameter_mutations, query)?,
        response: list("response_mutations", &message.response_mutations, false, at)?,
        request_trailers: list("request_trailers_mutations", &message.request_trailers_mutations, false, at)?,
        response_trailers: list("response_trailers_mutations", &message.response_trailers_mutations, false, at)?,
    })
}

/// Header mutations in their order; those that would break the framing are left out with a note.
pub(crate) fn list(name: &str, messages: &[PbMutation], request: bool, at: &At<'_>) -> Result<Vec<Mutation>, Reject> {
    let all = at.each(name, messages, |m, at| mutation(m, request, at))?;
    Ok(all.into_iter().flatten().collect())
}

fn mutation(message: &PbMutation, request: bool, at: &At<'_>) -> Result<Option<Mutation>, Reject> {
    fields!(at, message => PbMutation { read: [action] });
    Ok(match at.required("action", &message.action)? {
        Action::Remove(name) => header_ops::removal(name, &at.field("remove"))?.map(Mutation::Remove),
        Action::Append(m) => header_ops::addition(m, request, &at.field("append"))?.map(Mutation::Add),
        Action::RemoveOnMatch(m) => {
            let at = at.field("remove_on_match");
            let matcher = at.required("key_matcher", &m.key_matcher)?;
            Some(Mutation::RemoveMatching(matcher::string(matcher, &at.field("key_matcher"))?))
        }
    })
}

fn query(message: &KeyValueMutation, at: &At<'_>) -> Result<QueryMutation, Reject> {
    fields!(at, message => KeyValueMutation { read: [append, remove] });
    match (&message.append, message.remove.as_str()) {
        (Some(_), name) if !name.is_empty() => Err(at.field("remove").reject("excludes append")),
        (None, "") => Err(at.field("append").reject("is required")),
        (None, name) => Ok(QueryMutation::Remove(name.into())),
        (Some(append), _) => {
            let at = at.field("append");
            fields!(&at, append => KeyValueAppend { read: [record, action], refuse: [entry] });
            let record = at.required("record", &append.record)?;
            let inner = at.field("record");
            let Some(Kind::StringValue(text)) = record.value.as_ref().and_then(|v| v.kind.as_ref()) else {
                return Err(inner.field("value").reject("must be a string"));
            };
            let action: KeyValueAppendAction = enumeration(append.action, &at.field("action"))?;
            Ok(QueryMutation::Set {
                key: not_empty(&record.key, &inner.field("key"))?.into(),
                value: template(text, &inner.field("value"))?,
                action: match action {
                    KeyValueAppendAction::AppendIfExistsOrAdd => AppendAction::AppendIfExistsOrAdd,
                    KeyValueAppendAction::AddIfAbsent => AppendAction::AddIfAbsent,
                    KeyValueAppendAction::OverwriteIfExistsOrAdd => AppendAction::OverwriteIfExistsOrAdd,
                    KeyValueAppendAction::OverwriteIfExists => AppendAction::OverwriteIfExists,
                },
            })
        }
    }
}
