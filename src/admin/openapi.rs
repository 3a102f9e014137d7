//! The API's description (OpenAPI 3.1), made of the table of endpoints and the types of its rows.

use std::sync::LazyLock;

use axum::http::StatusCode;
use schemars::generate::SchemaSettings;
use schemars::{Schema, SchemaGenerator};
use serde_json::{Map, Value, json};

use super::Role;
use super::endpoints::{Endpoint, endpoints};
use super::exchange::{Gives, Needs};
use super::model::{BalancerEvent, Problem};

/// The whole description, as JSON. It is written once.
pub(super) fn document() -> &'static [u8] {
    static DOCUMENT: LazyLock<String> = LazyLock::new(|| describe(&endpoints()).to_string());
    DOCUMENT.as_bytes()
}

fn describe(endpoints: &[Endpoint]) -> Value {
    let settings = SchemaSettings::draft2020_12().with(|settings| {
        settings.definitions_path = "/components/schemas".into();
        settings.meta_schema = None;
    });
    let mut schemas = settings.into_generator();
    let mut paths = Map::new();
    for endpoint in endpoints {
        let path = paths.entry(endpoint.path).or_insert_with(|| json!({}));
        let method = endpoint.method.as_str().to_ascii_lowercase();
        path[method] = operation(endpoint, &mut schemas);
    }
    // What stands in the data of a stream's events; no row's type names it.
    schemas.subschema_for::<BalancerEvent>();
    let definitions = schemas.take_definitions(true);
    json!({
        "openapi": "3.1.0",
        "info": {
            "title": "Mahoraga",
            "description": "Over the Unix socket everything is open to who may open it; \
                over HTTP send a token of the role in `security`.",
            "version": env!("CARGO_PKG_VERSION"),
            "license": { "name": "MIT", "identifier": "MIT" },
        },
        "servers": [{ "url": "/" }],
        "paths": paths,
        "components": {
            "schemas": definitions,
            "securitySchemes": { TOKEN: { "type": "http", "scheme": "bearer" } },
        },
    })
}

fn operation(endpoint: &Endpoint, schemas: &mut SchemaGenerator) -> Value {
    let mut parameters: Vec<Value> = endpoint.parameters().map(path_parameter).collect();
    let mut body = None;
    match (endpoint.needs)(schemas) {
        Needs::Nothing => {}
        Needs::Query(schema) => parameters.extend(query_parameters(schema)),
        Needs::Body(schema) => {
            body = Some(json!({ "required": true, "content": content(JSON, &schema) }));
        }
    }
    let Gives(media_type, schema) = (endpoint.gives)(schemas);
    let says = described(&schema, schemas).unwrap_or_else(|| endpoint.summary.to_owned());
    let mut responses = Map::new();
    responses.insert(
        endpoint.success.as_str().to_owned(),
        json!({ "description": says, "content": content(media_type, &schema) }),
    );
    let problem = schemas.subschema_for::<Problem>();
    for status in endpoint.refusals(body.is_some()) {
        let problem = json!({ "description": why(status), "content": content(JSON, &problem) });
        responses.insert(status.as_str().to_owned(), problem);
    }
    let mut operation = json!({
        "operationId": endpoint.id,
        "summary": endpoint.summary,
        "parameters": parameters,
        "security": security(endpoint.role),
        "responses": responses,
    });
    if let Some(body) = body {
        operation["requestBody"] = body;
    }
    operation
}

/// What the type of an answer says of itself, where it has a name.
fn described(schema: &Schema, schemas: &SchemaGenerator) -> Option<String> {
    let (_, name) = schema.get("$ref")?.as_str()?.rsplit_once('/')?;
    let description = schemas.definitions().get(name)?.get("description")?;
    description.as_str().map(str::to_owned)
}

/// When a status is a refusal.
fn why(status: StatusCode) -> &'static str {
    let known = REFUSALS.iter().find(|(one, _)| *one == status);
    known.map_or("", |(_, why)| why)
}

fn content(media_type: &str, schema: &Schema) -> Value {
    json!({ media_type: { "schema": schema } })
}

fn path_parameter(name: &str) -> Value {
    let known = PARAMETERS.iter().find(|(one, _)| *one == name);
    let says = known.map_or("", |(_, says)| says);
    json!({
        "name": name,
        "in": "path",
        "required": true,
        "description": says,
        "schema": { "type": "string" },
    })
}

/// Each field of the schema of an object as a parameter.
fn query_parameters(schema: Schema) -> Vec<Value> {
    let mut schema = schema.to_value();
    let fields = schema["properties"].take();
    let fields = fields.as_object().cloned().unwrap_or_default();
    let parameter = |(name, mut schema): (String, Value)| {
        let mut parameter = json!({ "name": name, "in": "query" });
        if let Some(fields) = schema.as_object_mut() {
            // No parameter is `null`: it is said, or it is not.
            fields.retain(|_, value| !value.is_null());
            if let Some(Value::Array(types)) = fields.get_mut("type") {
                types.retain(|one| one != "null");
            }
            parameter["description"] = fields.remove("description").unwrap_or_default();
        }
        parameter["schema"] = schema;
        parameter
    };
    fields.into_iter().map(parameter).collect()
}

/// The role stands as a scope of the token; without a role a request needs no token.
fn security(role: Option<Role>) -> Value {
    let scope = match role {
        None => return json!([]),
        Some(Role::Read) => "read",
        Some(Role::Write) => "write",
    };
    json!([{ TOKEN: [scope] }])
}

/// The parameters of paths.
const PARAMETERS: [(&str, &str); 7] = [
    ("listener", "The listener's name."),
    (
        "route",
        "The route's name, or its number among those of its listener, from 1 on.",
    ),
    ("list", "The access list's name."),
    (
        "prefix",
        "An address or a prefix, as the ban has it; its `/` is written `%2F`.",
    ),
    ("pool", "The pool's name."),
    (
        "backend",
        "The backend's name; a `/` in it is written `%2F`.",
    ),
    ("id", "Worker and number, as in the access log: `0-17`."),
];
/// When a request is refused with which status.
const REFUSALS: [(StatusCode, &str); 12] = [
    (StatusCode::BAD_REQUEST, "The request can't be read."),
    (
        StatusCode::UNAUTHORIZED,
        "Over HTTP: no token, or one that is not known.",
    ),
    (
        StatusCode::FORBIDDEN,
        "Over HTTP: the token may only look, or a page of another site asks.",
    ),
    (StatusCode::NOT_FOUND, "There is nothing of this name."),
    (StatusCode::REQUEST_TIMEOUT, "The body took too long."),
    (
        StatusCode::CONFLICT,
        "There is one of this name already, or the version is another one by now.",
    ),
    (StatusCode::PAYLOAD_TOO_LARGE, "A body has 1 MiB at most."),
    (StatusCode::UNSUPPORTED_MEDIA_TYPE, "The body is not JSON."),
    (
        StatusCode::UNPROCESSABLE_ENTITY,
        "With this the configuration would not be right: nothing has changed.",
    ),
    (
        StatusCode::INTERNAL_SERVER_ERROR,
        "A file of a log can't be opened: lines go where they went.",
    ),
    (
        StatusCode::SERVICE_UNAVAILABLE,
        "The balancer is starting or ending, or too much of this is asked at a time.",
    ),
    (
        StatusCode::GATEWAY_TIMEOUT,
        "The control thread is busy: what was asked may still happen.",
    ),
];

const JSON: &str = "application/json";
const TOKEN: &str = "token";

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use crate::admin::model::SessionState;
    use crate::config::AdminState;

    #[test]
    fn every_row_is_described() {
        let description = describe(&endpoints());
        let described: usize = description["paths"]
            .as_object()
            .unwrap()
            .values()
            .map(|path| path.as_object().unwrap().len())
            .sum();
        assert_eq!(described, endpoints().len());
        let mut ids = BTreeSet::new();
        for endpoint in endpoints() {
            let method = endpoint.method.as_str().to_ascii_lowercase();
            let operation = &description["paths"][endpoint.path][method];
            assert!(ids.insert(operation["operationId"].as_str().unwrap().to_owned()));
            assert_ne!(operation["summary"], "", "{}", endpoint.id);
            assert_eq!(operation["security"], security(endpoint.role));
            let success = &operation["responses"][endpoint.success.as_str()];
            assert!(success["content"].is_object(), "{}", endpoint.id);
            let responses = operation["responses"].as_object().unwrap();
            for (status, response) in responses {
                assert_ne!(response["description"], "", "{} {status}", endpoint.id);
            }
            for name in endpoint.parameters() {
                let parameters = operation["parameters"].as_array().unwrap();
                assert!(parameters.contains(&path_parameter(name)));
                assert_ne!(path_parameter(name)["description"], "", "{name}");
            }
        }
    }

    #[test]
    fn answers_and_parameters_are_described() {
        let description = describe(&endpoints());
        let add = &description["paths"]["/v1/pools/{pool}/backends"]["post"];
        let schema = &add["requestBody"]["content"][JSON]["schema"];
        assert_eq!(schema["$ref"], "#/components/schemas/NewBackend");
        let statuses: Vec<_> = add["responses"].as_object().unwrap().keys().collect();
        let want = [
            "201", "400", "401", "403", "404", "408", "409", "413", "415", "422", "503", "504",
        ];
        assert_eq!(statuses, want);
        assert_eq!(
            add["responses"]["201"]["description"],
            "A change is in force."
        );
        let describe = &description["paths"]["/v1/openapi.json"]["get"];
        let statuses: Vec<_> = describe["responses"].as_object().unwrap().keys().collect();
        assert_eq!(statuses, ["200", "400", "401", "403"]);
        let sessions = &description["paths"]["/v1/sessions"]["get"]["parameters"];
        let client = sessions.as_array().unwrap().iter();
        let client: Vec<_> = client.filter(|one| one["name"] == "client").collect();
        let want = json!({
            "name": "client",
            "in": "query",
            "description": "The client's address, without its port. An IPv4 address matches its \
                            IPv6-mapped form too.",
            "schema": { "type": ["string"], "format": "ip" },
        });
        assert_eq!(client, [&want]);
    }

    #[test]
    fn bodies_are_described() {
        let description = describe(&endpoints());
        let schemas = &description["components"]["schemas"];
        assert_eq!(schemas["NewBackend"]["required"], json!(["address"]));
        assert!(schemas["Event"].is_object());
        // As the configuration has it.
        let weight = json!({
            "type": "integer",
            "minimum": 0,
            "maximum": 256,
            "description": "Its share relative to the other backends; 0: no share.",
        });
        assert_eq!(schemas["BackendChange"]["properties"]["weight"], weight);
        let new = &schemas["NewBackend"]["properties"]["weight"];
        assert_eq!(new["default"], 1);
        for name in [
            "NewBackend",
            "BackendChange",
            "PoolChange",
            "ListenerChange",
            "AccessListChange",
            "RouteChange",
            "NewRoutes",
            "GlobalChange",
        ] {
            for (field, setting) in schemas[name]["properties"].as_object().unwrap() {
                assert!(setting["description"].is_string(), "{name} {field}");
            }
        }
        let limit = &schemas["GlobalChange"]["properties"]["max_connections"];
        let want = json!([
            { "const": "auto" },
            { "type": "integer", "minimum": 0, "maximum": 1 << 24 },
            { "const": "off" },
        ]);
        assert_eq!(limit["anyOf"], want);
        let timeout = &schemas["PoolChange"]["properties"]["queue_timeout"];
        assert!(timeout["pattern"].is_string());
        let words = |schema: &str| {
            let all = schemas[schema]["oneOf"].as_array().unwrap().iter();
            all.map(|one| one["const"].as_str().unwrap()).collect()
        };
        let states: Vec<_> = AdminState::ALL.map(|(word, _)| word).into();
        let state: Vec<&str> = words("AdminState");
        assert_eq!(state, states);
        let health: Vec<&str> = words("HealthStatus");
        assert_eq!(health, ["unchecked", "up", "down", "unresolved"]);
        let session: Vec<&str> = words("SessionState");
        assert!(session.contains(&SessionState::Queued.as_str()));
    }

    #[test]
    fn every_reference_resolves() {
        fn references(value: &Value, into: &mut Vec<String>) {
            match value {
                Value::Object(fields) => {
                    if let Some(Value::String(to)) = fields.get("$ref") {
                        into.push(to.clone());
                    }
                    fields.values().for_each(|value| references(value, into));
                }
                Value::Array(items) => items.iter().for_each(|value| references(value, into)),
                Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
            }
        }
        let description = describe(&endpoints());
        let mut found = Vec::new();
        references(&description, &mut found);
        assert!(found.len() > endpoints().len());
        for reference in found {
            let pointer = reference.strip_prefix('#').unwrap();
            assert!(description.pointer(pointer).is_some(), "{reference}");
        }
    }
}
