//! The OpenAPI document, made from the table of routes and the types of the wire.

use std::collections::BTreeSet;
use std::sync::OnceLock;

use serde_json::json;
use utoipa::ToSchema;
use utoipa::openapi::extensions::{Extensions, ExtensionsBuilder};
use utoipa::openapi::path::{HttpMethod, OperationBuilder, ParameterBuilder, ParameterIn, PathItem};
use utoipa::openapi::request_body::RequestBodyBuilder;
use utoipa::openapi::schema::{ArrayBuilder, ComponentsBuilder, ObjectBuilder, Ref, Schema, Type};
use utoipa::openapi::security::{HttpAuthScheme, HttpBuilder, SecurityRequirement, SecurityScheme};
use utoipa::openapi::{
    Content, InfoBuilder, LicenseBuilder, OpenApi, OpenApiBuilder, PathsBuilder, RefOr, Required, Response,
    ResponseBuilder,
};

use crate::problem::PROBLEM_JSON;
use crate::routes::{Given, Needs, ROUTES, Route, Verb};
use crate::wire;

/// How a type of the wire is described.
#[derive(Clone, Copy)]
pub struct Form {
    schema: fn() -> RefOr<Schema>,
    parts: fn(&mut Vec<Named>),
}

type Named = (String, RefOr<Schema>);

impl Form {
    /// The schema, by reference where it has a name.
    pub(crate) fn schema(&self) -> RefOr<Schema> {
        (self.schema)()
    }

    /// The form of one `T`.
    pub(crate) const fn one<T: ToSchema>() -> Self {
        Self { schema: reference::<T>, parts: parts::<T> }
    }

    /// The form of a list of `T`.
    pub(crate) const fn list<T: ToSchema>() -> Self {
        Self { schema: list_of::<T>, parts: parts::<T> }
    }

    /// The form of any JSON object.
    pub(crate) const fn object() -> Self {
        Self { schema: any_object, parts: |_| {} }
    }
}

/// The OpenAPI document of the API.
pub fn document() -> OpenApi {
    let mut named = Vec::new();
    parts::<wire::Problem>(&mut named);
    let mut paths = PathsBuilder::new();
    for route in ROUTES {
        route.forms().for_each(|form| (form.parts)(&mut named));
        paths =
            paths.path(openapi_path(route.path), PathItem::new(http_method(route.method), operation(route)));
    }
    let token =
        HttpBuilder::new().scheme(HttpAuthScheme::Bearer).description(Some("a token of this vault")).build();
    let components = ComponentsBuilder::new()
        .schemas_from_iter(named)
        .security_scheme(TOKEN, SecurityScheme::Http(token))
        .build();
    let license = LicenseBuilder::new().name("Apache-2.0").identifier(Some("Apache-2.0")).build();
    let info = InfoBuilder::new()
        .title("Keymoat")
        .version("1")
        .description(Some("Keeps third-party API keys safe. Errors are problem+json (RFC 9457)."))
        .license(Some(license))
        .build();
    OpenApiBuilder::new().info(info).paths(paths).components(Some(components)).build()
}

/// The document as it is served and kept in the repository.
pub(crate) fn text() -> &'static str {
    static TEXT: OnceLock<String> = OnceLock::new();
    TEXT.get_or_init(|| {
        let value = serde_json::to_value(document()).expect("a document has string keys");
        let mut text = serde_json::to_string_pretty(&value).expect("a JSON value can be written");
        text.push('\n');
        text
    })
}

/// Every name that a type of the wire has for a part of it.
pub(crate) fn property_names() -> &'static BTreeSet<String> {
    static NAMES: OnceLock<BTreeSet<String>> = OnceLock::new();
    NAMES.get_or_init(|| {
        let value: serde_json::Value = serde_json::from_str(text()).expect("the document is JSON");
        let mut names = BTreeSet::new();
        collect_names(&value["components"]["schemas"], &mut names);
        names
    })
}

fn collect_names(value: &serde_json::Value, names: &mut BTreeSet<String>) {
    match value {
        serde_json::Value::Object(map) => {
            if let Some(serde_json::Value::Object(properties)) = map.get("properties") {
                names.extend(properties.keys().cloned());
            }
            map.values().for_each(|value| collect_names(value, names));
        }
        serde_json::Value::Array(items) => items.iter().for_each(|value| collect_names(value, names)),
        _ => {}
    }
}

fn operation(route: &Route) -> OperationBuilder {
    let mut operation = OperationBuilder::new()
        .tag(route.tag())
        .operation_id(Some(route.id()))
        .summary(Some(route.summary))
        .extensions(Some(extensions(route)));
    for name in route.path_names() {
        let about =
            ParameterBuilder::new().name(name).parameter_in(ParameterIn::Path).required(Required::True);
        operation = operation.parameter(about.schema(Some(text_schema())).build());
    }
    for parameter in route.query {
        let about = ParameterBuilder::new()
            .name(parameter.name)
            .parameter_in(ParameterIn::Query)
            .required(Required::False)
            .description(Some(parameter.about))
            .schema(Some(text_schema()));
        operation = operation.parameter(about.build());
    }
    if let Some(form) = route.takes {
        let body = RequestBodyBuilder::new()
            .content("application/json", Content::new(Some(form.schema())))
            .required(Some(Required::True));
        operation = operation.request_body(Some(body.build()));
    }
    if !matches!(route.needs, Needs::Nobody) {
        operation = operation.security(SecurityRequirement::new(TOKEN, Vec::<String>::new()));
    }
    operation.response(route.status.to_string(), given(route)).response("default", problem())
}

fn given(route: &Route) -> Response {
    let response = ResponseBuilder::new().description(route.summary);
    match route.gives {
        Given::Nothing => response.build(),
        Given::Json(form) => response.content("application/json", Content::new(Some(form.schema()))).build(),
        Given::Text(kind) => response.content(kind, Content::new(Some(text_schema()))).build(),
    }
}

fn problem() -> Response {
    let content = Content::new(Some(reference::<wire::Problem>()));
    ResponseBuilder::new().description("what is wrong").content(PROBLEM_JSON, content).build()
}

/// What is Keymoat's own: what the caller needs, and whether a sealed server answers.
fn extensions(route: &Route) -> Extensions {
    let extensions = ExtensionsBuilder::new().add("x-keymoat-needs", needs(&route.needs));
    match route.answers_while_sealed() {
        true => extensions.add("x-keymoat-while-sealed", true).build(),
        false => extensions.build(),
    }
}

/// What a route needs, for programs.
fn needs(needs: &Needs) -> serde_json::Value {
    match needs {
        Needs::Nobody => json!("nobody"),
        Needs::SignedIn => json!("signed_in"),
        Needs::Capability { capability, resource } => {
            json!({ "capability": capability.as_str(), "resource": resource })
        }
        Needs::Each { capability, resource } => {
            json!({ "capability": capability.as_str(), "resource": resource, "of": "each" })
        }
        Needs::LocalOr { capability, resource } => {
            json!({ "capability": capability.as_str(), "resource": resource, "unless": "socket" })
        }
    }
}

/// axum's `{*path}` is `{path}` there.
fn openapi_path(path: &str) -> String {
    path.replace("{*", "{")
}

fn http_method(verb: Verb) -> HttpMethod {
    match verb {
        Verb::Get | Verb::Any => HttpMethod::Get,
        Verb::Post => HttpMethod::Post,
        Verb::Put => HttpMethod::Put,
        Verb::Patch => HttpMethod::Patch,
        Verb::Delete => HttpMethod::Delete,
    }
}

fn reference<T: ToSchema>() -> RefOr<Schema> {
    RefOr::Ref(Ref::from_schema_name(T::name()))
}

fn list_of<T: ToSchema>() -> RefOr<Schema> {
    RefOr::T(Schema::Array(ArrayBuilder::new().items(reference::<T>()).build()))
}

fn any_object() -> RefOr<Schema> {
    RefOr::T(Schema::Object(ObjectBuilder::new().schema_type(Type::Object).build()))
}

fn text_schema() -> RefOr<Schema> {
    RefOr::T(Schema::Object(ObjectBuilder::new().schema_type(Type::String).build()))
}

fn parts<T: ToSchema>(named: &mut Vec<Named>) {
    named.push((T::name().into_owned(), T::schema()));
    T::schemas(named);
}

const TOKEN: &str = "token";
