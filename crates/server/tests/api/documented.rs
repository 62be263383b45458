//! The OpenAPI document: committed, fresh, and exactly the table of routes.

use std::collections::BTreeSet;
use std::path::Path;

use keymoat_server::{ROUTES, document};

#[test]
fn the_committed_document_is_this_one() {
    let value = serde_json::to_value(document()).unwrap();
    let fresh = serde_json::to_string_pretty(&value).unwrap() + "\n";
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/reference/openapi.json");
    if option_env!("UPDATE").is_some_and(|wanted| wanted == "1") {
        std::fs::create_dir_all(file.parent().unwrap()).unwrap();
        std::fs::write(&file, &fresh).unwrap();
    }
    let committed = std::fs::read_to_string(&file).unwrap_or_default();
    assert!(committed == fresh, "docs/reference/openapi.json is stale: run the test with UPDATE=1");
}

#[test]
fn the_document_has_the_routes_and_no_others() {
    let value = serde_json::to_value(document()).unwrap();
    let documented: BTreeSet<(String, String)> = value["paths"]
        .as_object()
        .unwrap()
        .iter()
        .flat_map(|(path, item)| {
            item.as_object()
                .unwrap()
                .keys()
                .map(|method| (method.to_uppercase(), path.clone()))
                .collect::<Vec<_>>()
        })
        .collect();
    let table: BTreeSet<(String, String)> = ROUTES
        .iter()
        .map(|route| (route.method.as_str().to_owned(), route.path.replace("{*", "{")))
        .collect();
    assert_eq!(documented, table);
}

#[test]
fn every_reference_of_the_document_leads_somewhere() {
    let value = serde_json::to_value(document()).unwrap();
    let text = value.to_string();
    for part in text.split("\"$ref\":\"#/components/schemas/").skip(1) {
        let name = part.split('"').next().unwrap();
        assert!(value["components"]["schemas"][name].is_object(), "{name} is not described");
    }
}
