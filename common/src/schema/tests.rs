use super::*;

fn rules(ranges: &[(&str, u32)]) -> Result<FirmwareRules, SchemaError> {
    let rules: Vec<_> = ranges
        .iter()
        .map(|(firmware, schema)| serde_json::json!({"firmware": firmware, "schema": schema}))
        .collect();
    FirmwareRules::parse(&serde_json::json!({ "rules": rules }).to_string())
}

fn schemas_dir() -> std::path::PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../schemas")
}

#[test]
fn baked_schemas_are_those_of_the_directory() {
    let baked = SchemaSet::baked().unwrap();
    let loaded = SchemaSet::load(&schemas_dir()).unwrap();
    let documents = |set: &SchemaSet| -> Vec<Value> {
        set.schemas().iter().map(|schema| schema.document().clone()).collect()
    };
    assert_eq!(documents(&baked), documents(&loaded));
    assert_eq!(baked.schemas().iter().map(Schema::version).collect::<Vec<_>>(), [1, 2, 3]);
    assert_eq!(baked.newest().version(), 3);
    let metrics: Vec<_> = baked.newest().metrics().collect();
    let expected = [
        "bearing_temp",
        "cpu_temp",
        "humidity",
        "motor_current",
        "supply_voltage",
        "vibration_rms",
    ];
    assert_eq!(metrics, expected);
}

/// E3: existing fields never change type, are never removed, and nothing new is required.
#[test]
fn each_version_only_adds_optional_metrics() {
    let set = SchemaSet::baked().unwrap();
    for pair in set.schemas().windows(2) {
        let at = |schema: &Schema, pointer: &str| schema.document().pointer(pointer).cloned();
        for pointer in ["/required", "/properties/metrics/required"] {
            assert_eq!(at(&pair[0], pointer), at(&pair[1], pointer), "{pointer}");
        }
        for name in pair[0].metrics() {
            for facet in ["type", "minimum", "maximum", "x-unit"] {
                let pointer = format!("/properties/metrics/properties/{name}/{facet}");
                let old = at(&pair[0], &pointer);
                assert!(old.is_some(), "{pointer} is missing");
                assert_eq!(old, at(&pair[1], &pointer), "{pointer} in v{}", pair[1].version());
            }
        }
    }
    let deprecated = "/properties/metrics/properties/supply_voltage/deprecated";
    assert_eq!(set.newest().document().pointer(deprecated), Some(&Value::Bool(true)));
}

#[test]
fn schemas_themselves_are_valid_2020_12() {
    for schema in SchemaSet::baked().unwrap().schemas() {
        jsonschema::meta::validate(schema.document()).unwrap();
    }
}

#[test]
fn firmware_chooses_the_schema() {
    let set = SchemaSet::baked().unwrap();
    let chosen = |firmware: &str| match set.choose(firmware) {
        Choice::Schema(schema) => Ok(schema.version()),
        Choice::UnknownFirmware => Err("unknown"),
        Choice::NotAVersion => Err("no version"),
    };
    assert_eq!(chosen("1.0.0"), Ok(1));
    assert_eq!(chosen("1.999.0"), Ok(1));
    assert_eq!(chosen("2.0.0-rc.1"), Ok(2));
    assert_eq!(chosen("1.9.9-rc.1+build.5"), Ok(1));
    assert_eq!(chosen("3.4.5+abc"), Ok(3));
    assert_eq!(chosen("0.9.9"), Err("unknown"));
    assert_eq!(chosen("4.0.0"), Err("unknown"));
    assert_eq!(chosen("18446744073709551615.0.0"), Err("unknown"));
    for bad in ["", "1", "1.2", "v1.2.3", "1.2.3.4", "01.2.3", "18446744073709551616.0.0", " 1.0.0"]
    {
        assert_eq!(chosen(bad), Err("no version"), "{bad:?}");
    }
}

#[test]
fn overlapping_ranges_are_refused() {
    for (one, other) in [
        (">=1.0.0, <2.0.0", ">=1.5.0, <3.0.0"),
        (">=1.0.0, <=2.0.0", ">=2.0.0"),
        ("*", "=7.0.0"),
        ("^1.2", "~1.9.3"),
        ("<5.0.0", "<1.0.0"),
        (">1.2.3, <2.0.0", ">=1.2.4, <1.2.5"),
        (">1.2, <2.0.0", "=1.3.0"),
        (">1", "=2.0.0"),
        ("1.*", "=1.7.3"),
    ] {
        for pair in [[(one, 1), (other, 2)], [(other, 1), (one, 2)]] {
            let error = rules(&pair).unwrap_err().to_string();
            assert!(error.contains("overlap"), "{one} {other}: {error}");
        }
    }
    for (one, other) in [
        (">=1.0.0, <2.0.0", ">=2.0.0, <3.0.0"),
        ("<=1.2.3", ">1.2.3"),
        ("^1", "^2"),
        ("~1.2", ">=1.3.0"),
    ] {
        rules(&[(one, 1), (other, 2)]).unwrap();
    }
}

#[test]
fn rules_must_lead_to_schemas_that_exist() {
    let v1 = serde_json::to_string(SchemaSet::baked().unwrap().get(1).unwrap().document()).unwrap();
    let rules = r#"{"rules": [{"firmware": "^2", "schema": 2}]}"#;
    let error = SchemaSet::compile([(1, v1.as_str())].into_iter(), rules).unwrap_err();
    assert!(error.to_string().contains("schema 2 does not exist"), "{error}");
    let error = FirmwareRules::parse(r#"{"rules": [], "extra": 1}"#).unwrap_err();
    assert!(error.to_string().contains("extra"), "{error}");
}
