//! `dynamic_resources`: where the control plane is.

use outrigger_wire::pb::envoy::config::bootstrap::v3::bootstrap::DynamicResources;

use super::{Ads, Dynamic};
use crate::xds::decode::{
    Reject,
    at::At,
    fields::fields,
    source::{api, config_source},
};

pub(super) fn dynamic(message: &Option<DynamicResources>, at: &At<'_>) -> Result<Dynamic, Reject> {
    let Some(message) = message else { return Ok(Dynamic::default()) };
    let at = at.field("dynamic_resources");
    fields!(&at, message => DynamicResources {
        read: [lds_config, cds_config, ads_config],
        refuse: [lds_resources_locator, cds_resources_locator],
    });
    let source =
        |name: &str, config: &Option<_>| config.as_ref().map(|m| config_source(m, &at.field(name))).transpose();
    let ads = match &message.ads_config {
        Some(m) => {
            let api = api(m, &at.field("ads_config"))?;
            Some(Ads {
                cluster: api.target.cluster,
                delta: api.delta,
                node_on_first_message_only: api.node_on_first_message_only,
                metadata: api.target.metadata,
                authority: api.target.authority,
                timeout: api.target.timeout,
            })
        }
        None => None,
    };
    Ok(Dynamic {
        ads,
        lds: source("lds_config", &message.lds_config)?,
        cds: source("cds_config", &message.cds_config)?,
    })
}
