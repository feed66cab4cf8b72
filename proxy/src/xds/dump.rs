//! `/config_dump`: what is kept of every resource for display, and its rendering in Envoy's shape.

/// The query parameters of `/config_dump`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct DumpQuery {
    /// `include_eds`.
    pub include_eds: bool,
    /// `resource`: one repeated field, such as `dynamic_active_clusters`, whose elements become the configs.
    pub resource: Option<String>,
    /// `name_regex`.
    pub name_regex: Option<String>,
}
