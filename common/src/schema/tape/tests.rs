use super::*;

use jsonschema::json::Node;
use serde_json::Value;

#[test]
fn placeholder() {}
