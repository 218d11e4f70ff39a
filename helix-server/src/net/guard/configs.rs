//! Requests about configurations.

use kafka_protocol::messages::describe_configs_request::DescribeConfigsResource;
use kafka_protocol::messages::describe_configs_response::DescribeConfigsResult;
use kafka_protocol::messages::{ApiKey, alter_configs_request, incremental_alter_configs_request};
use kafka_protocol::protocol::StrBytes;

use super::schema::{Api, Kind, Schema, answered_array, array, boolean, int8, text};

pub(super) const DESCRIBE_CONFIGS: Api = Api {
    key: ApiKey::DescribeConfigs,
    min: 1,
    max: 4,
    flexible_from: 4,
    request: &Schema::new(
        "DescribeConfigsRequest",
        &[
            answered_array::<DescribeConfigsResource, DescribeConfigsResult>(
                "resources",
                &Kind::Struct(&DESCRIBED),
            ),
            boolean("include_synonyms"),
            boolean("include_documentation").since(3),
        ],
    ),
};

const DESCRIBED: Schema = Schema::new(
    "DescribeConfigsResource",
    &[
        int8("resource_type"),
        text("resource_name"),
        array::<StrBytes>("configuration_keys", &Kind::Text).nullable(),
    ],
);

pub(super) const ALTER_CONFIGS: Api = Api {
    key: ApiKey::AlterConfigs,
    min: 0,
    max: 2,
    flexible_from: 2,
    request: &Schema::new(
        "AlterConfigsRequest",
        &[
            array::<alter_configs_request::AlterConfigsResource>("resources", &Kind::Struct(&ALTERED)),
            boolean("validate_only"),
        ],
    ),
};

const ALTERED: Schema = Schema::new(
    "AlterConfigsResource",
    &[
        int8("resource_type"),
        text("resource_name"),
        array::<alter_configs_request::AlterableConfig>("configs", &Kind::Struct(&ALTERED_CONFIG)),
    ],
);

const ALTERED_CONFIG: Schema = Schema::new("AlterableConfig", &[text("name"), text("value").nullable()]);

pub(super) const INCREMENTAL_ALTER_CONFIGS: Api = Api {
    key: ApiKey::IncrementalAlterConfigs,
    min: 0,
    max: 1,
    flexible_from: 1,
    request: &Schema::new(
        "IncrementalAlterConfigsRequest",
        &[
            array::<incremental_alter_configs_request::AlterConfigsResource>(
                "resources",
                &Kind::Struct(&CHANGED),
            ),
            boolean("validate_only"),
        ],
    ),
};

const CHANGED: Schema = Schema::new(
    "AlterConfigsResource",
    &[
        int8("resource_type"),
        text("resource_name"),
        array::<incremental_alter_configs_request::AlterableConfig>(
            "configs",
            &Kind::Struct(&CHANGED_CONFIG),
        ),
    ],
);

const CHANGED_CONFIG: Schema =
    Schema::new("AlterableConfig", &[text("name"), int8("config_operation"), text("value").nullable()]);

pub(super) const LIST_CONFIG_RESOURCES: Api = Api {
    key: ApiKey::ListConfigResources,
    min: 0,
    max: 1,
    flexible_from: 0,
    request: &Schema::new(
        "ListConfigResourcesRequest",
        &[array::<i8>("resource_types", &Kind::Fixed(1)).since(1)],
    ),
};
