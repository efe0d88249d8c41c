//! From a Tool's JSON Schema to the types that rules see. What a schema leaves open is `any`; a name that it does not declare does not exist.

use std::{
    cell::Cell,
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use serde_json::{Map, Value};

use super::ty::{Field, Obj, Ty};

/// Below this depth everything is `any`; a recursive schema ends here.
const MAX_DEPTH: usize = 12;
/// Most nodes that become types; beyond them everything is `any`.
const MAX_NODES: u32 = 10_000;
/// Most references that lead to each other one after the other.
const MAX_REFERENCES: usize = 32;
/// Deepest schema.
const MAX_NESTED: usize = 64;
/// Most schema nodes that a validation may walk for one place in the input, references expanded.
const MAX_EXPANDED: u64 = 20_000;

/// What a conversion needs on its way: where references point to, and how many nodes are left.
struct Cx<'a> {
    root: &'a Value,
    left: Cell<u32>,
}

/// Type of `args` for a Tool.
#[must_use]
pub fn args(schema: &Value, tool: &str) -> Ty {
    let cx = Cx { root: schema, left: Cell::new(MAX_NODES) };
    let ty = of(schema, &cx, &format!("args of Tool {tool}"), 0);
    match ty {
        Ty::Object(_) | Ty::Map(_) => ty,
        _ => Ty::Map(Arc::new(Ty::Dyn)),
    }
}

/// Type of what a Tool returns.
#[must_use]
pub fn result(schema: &Value, tool: &str) -> Ty {
    of(schema, &Cx { root: schema, left: Cell::new(MAX_NODES) }, &format!("the result of Tool {tool}"), 0)
}

fn of(schema: &Value, cx: &Cx<'_>, what: &str, depth: usize) -> Ty {
    let Value::Object(map) = schema else { return Ty::Dyn };
    if depth > MAX_DEPTH || cx.left.get() == 0 {
        return Ty::Dyn;
    }
    cx.left.set(cx.left.get() - 1);
    let mut parts = vec![own(map, cx, what, depth)];
    if let Some(target) = reference(map, cx.root) {
        parts.push(of(target, cx, what, depth + 1));
    }
    for part in list(map, "allOf") {
        parts.push(of(part, cx, what, depth + 1));
    }
    for key in ["anyOf", "oneOf"] {
        if map.contains_key(key) {
            let variants: Vec<Ty> = list(map, key).map(|v| of(v, cx, what, depth + 1)).collect();
            parts.push(either(variants, what));
        }
    }
    parts.into_iter().reduce(both).unwrap_or(Ty::Dyn)
}

/// The target of a local reference.
fn reference<'a>(map: &Map<String, Value>, root: &'a Value) -> Option<&'a Value> {
    let pointer = map.get("$ref")?.as_str()?.strip_prefix('#')?;
    if pointer.is_empty() { Some(root) } else { root.pointer(pointer) }
}

fn list<'a>(map: &'a Map<String, Value>, key: &str) -> impl Iterator<Item = &'a Value> {
    map.get(key).and_then(Value::as_array).into_iter().flatten()
}

/// What a schema says of itself, without references and combinations.
fn own(map: &Map<String, Value>, cx: &Cx<'_>, what: &str, depth: usize) -> Ty {
    let listed = map.get("const").map(std::slice::from_ref).or_else(|| map.get("enum").and_then(Value::as_array).map(Vec::as_slice));
    let base = match map.get("type") {
        Some(Value::String(name)) => named(name, map, cx, what, depth),
        Some(Value::Array(names)) => {
            let all: Vec<Ty> = names.iter().filter_map(Value::as_str).map(|name| named(name, map, cx, what, depth)).collect();
            either(all, what)
        }
        _ if map.contains_key("properties") => object(map, cx, what, depth),
        _ if map.contains_key("items") => array(map, cx, what, depth),
        _ => Ty::Dyn,
    };
    match listed {
        Some(values) => values_of(values, &base),
        None => base,
    }
}

fn named(name: &str, map: &Map<String, Value>, cx: &Cx<'_>, what: &str, depth: usize) -> Ty {
    match name {
        "string" => Ty::STRING,
        "integer" => Ty::Int,
        "number" => Ty::Double,
        "boolean" => Ty::Bool,
        "null" => Ty::Null,
        "array" => array(map, cx, what, depth),
        "object" => object(map, cx, what, depth),
        _ => Ty::Dyn,
    }
}

fn array(map: &Map<String, Value>, cx: &Cx<'_>, what: &str, depth: usize) -> Ty {
    match map.get("items") {
        Some(items) if !map.contains_key("prefixItems") => Ty::list(of(items, cx, &format!("items of {what}"), depth + 1)),
        _ => Ty::list(Ty::Dyn),
    }
}

fn object(map: &Map<String, Value>, cx: &Cx<'_>, what: &str, depth: usize) -> Ty {
    let properties = map.get("properties").and_then(Value::as_object);
    let required: BTreeSet<&str> = list(map, "required").filter_map(Value::as_str).collect();
    if let Some(properties) = properties.filter(|p| !p.is_empty()) {
        let fields = properties
            .iter()
            .map(|(name, schema)| {
                let ty = of(schema, cx, &format!("{name} in {what}"), depth + 1);
                (name.clone(), Field { ty, required: required.contains(name.as_str()) })
            })
            .collect();
        return Ty::Object(Arc::new(Obj { what: what.to_owned(), fields }));
    }
    match map.get("additionalProperties") {
        Some(Value::Bool(false)) if !map.contains_key("patternProperties") => {
            Ty::Object(Arc::new(Obj { what: what.to_owned(), ..Obj::default() }))
        }
        Some(values @ Value::Object(_)) if !map.contains_key("patternProperties") => {
            Ty::Map(Arc::new(of(values, cx, &format!("values of {what}"), depth + 1)))
        }
        _ => Ty::Map(Arc::new(Ty::Dyn)),
    }
}

/// Type of listed values.
fn values_of(values: &[Value], base: &Ty) -> Ty {
    let strings: Option<Vec<String>> = values.iter().filter(|v| !v.is_null()).map(|v| v.as_str().map(str::to_owned)).collect();
    let ty = match strings {
        Some(strings) if !strings.is_empty() => Ty::Str(Some(Arc::new(strings))),
        _ if *base != Ty::Dyn => return base.clone(),
        _ if values.iter().all(Value::is_boolean) => Ty::Bool,
        _ if values.iter().all(Value::is_i64) => Ty::Int,
        _ => return Ty::Dyn,
    };
    if values.iter().any(Value::is_null) { ty.nullable() } else { ty }
}

/// One of several.
fn either(variants: Vec<Ty>, what: &str) -> Ty {
    let null = variants.iter().any(|t| matches!(t, Ty::Null | Ty::Nullable(_)));
    let mut rest = variants.into_iter().filter(|t| *t != Ty::Null).map(|t| t.non_null().clone());
    let Some(first) = rest.next() else { return if null { Ty::Null } else { Ty::Dyn } };
    let joined = rest.fold(first, |a, b| match (&a, &b) {
        (Ty::Int | Ty::Double, Ty::Int | Ty::Double) => {
            if a == b {
                a
            } else {
                Ty::Double
            }
        }
        (Ty::Str(Some(x)), Ty::Str(Some(y))) => Ty::Str(Some(Arc::new(x.iter().chain(y.iter()).cloned().collect()))),
        (Ty::Object(x), Ty::Object(y)) => Ty::Object(Arc::new(overlap(x, y, what))),
        _ => a.join(&b).unwrap_or(Ty::Dyn),
    });
    if null { joined.nullable() } else { joined }
}

/// Fields of one or the other object: always there only if they are in both.
fn overlap(x: &Obj, y: &Obj, what: &str) -> Obj {
    let mut fields = BTreeMap::new();
    for name in x.fields.keys().chain(y.fields.keys()) {
        let field = match (x.fields.get(name), y.fields.get(name)) {
            (Some(a), Some(b)) => Field { ty: either(vec![a.ty.clone(), b.ty.clone()], what), required: a.required && b.required },
            (Some(a), None) | (None, Some(a)) => Field { ty: a.ty.clone(), required: false },
            (None, None) => continue,
        };
        fields.insert(name.clone(), field);
    }
    Obj { what: what.to_owned(), fields }
}

/// Both at once.
fn both(a: Ty, b: Ty) -> Ty {
    match (a, b) {
        (Ty::Dyn, t) | (t, Ty::Dyn) => t,
        (Ty::Object(a), Ty::Object(b)) => {
            let mut fields = a.fields.clone();
            for (name, field) in &b.fields {
                match fields.get_mut(name) {
                    Some(have) => {
                        have.required |= field.required;
                        have.ty = both(have.ty.clone(), field.ty.clone());
                    }
                    None => {
                        fields.insert(name.clone(), field.clone());
                    }
                }
            }
            Ty::Object(Arc::new(Obj { what: a.what.clone(), fields }))
        }
        (Ty::Map(_), t @ (Ty::Object(_) | Ty::Map(_))) | (t @ Ty::Object(_), Ty::Map(_)) => t,
        (Ty::Str(None), t @ Ty::Str(_)) => t,
        (Ty::Double, Ty::Int) => Ty::Int,
        (a, _) => a,
    }
}

/// Refuses schemas whose validation could take time out of proportion to their size: references that multiply, or that recur on more than one branch.
///
/// # Errors
/// Such a schema, a reference that leaves it, or a dynamic one.
pub fn guard(schema: &Value) -> Result<(), String> {
    if !crate::canon::depth_within(schema, MAX_NESTED) {
        return Err(format!("nested deeper than {MAX_NESTED} levels"));
    }
    let mut walk = Walk { root: schema, open: Vec::new(), known: BTreeMap::new(), branching: 0, recurs: false };
    let size = walk.size(schema, false)?;
    if size.nodes > MAX_EXPANDED {
        return Err(format!("with references expanded it has more than {MAX_EXPANDED} parts"));
    }
    // a schema that recurs is walked once more for each level of the input
    let most = if walk.recurs { MAX_NESTED / 2 } else { MAX_NESTED };
    if size.height > most {
        return Err(format!("with references expanded it is nested deeper than {most} levels"));
    }
    if walk.branching > 1 {
        return Err("recurs on more than one branch of anyOf, oneOf, allOf, not or if".to_owned());
    }
    Ok(())
}

/// Size of a schema with its references expanded.
#[derive(Clone, Copy)]
struct Size {
    nodes: u64,
    height: usize,
}

impl Size {
    const ONE: Self = Self { nodes: 1, height: 0 };

    /// With a part below it.
    fn with(self, part: Self) -> Self {
        Self { nodes: self.nodes.saturating_add(part.nodes), height: self.height.max(part.height + 1) }
    }
}

struct Walk<'a> {
    root: &'a Value,
    open: Vec<&'a str>,
    known: BTreeMap<&'a str, Size>,
    /// References back into a schema that is open, below a keyword that tries several schemas on the same value.
    branching: usize,
    /// Whether there are references back at all.
    recurs: bool,
}

impl<'a> Walk<'a> {
    fn size(&mut self, schema: &'a Value, branch: bool) -> Result<Size, String> {
        match schema {
            Value::Array(items) => items.iter().try_fold(Size::ONE, |size, s| Ok(size.with(self.size(s, branch)?))),
            Value::Object(map) => {
                let mut size = Size::ONE;
                for (key, value) in map {
                    size = size.with(match (key.as_str(), value) {
                        ("$ref", Value::String(target)) => self.target(target, branch)?,
                        ("$dynamicRef" | "$recursiveRef", _) => return Err(format!("{key} is not supported")),
                        ("$defs" | "definitions" | "const" | "enum" | "default" | "examples", _) => Size::ONE,
                        ("anyOf" | "oneOf" | "allOf" | "not" | "if" | "then" | "else", v) => self.size(v, true)?,
                        (_, v) => self.size(v, branch)?,
                    });
                }
                Ok(size)
            }
            _ => Ok(Size::ONE),
        }
    }

    fn target(&mut self, target: &'a str, branch: bool) -> Result<Size, String> {
        let Some(pointer) = target.strip_prefix('#') else {
            return Err(format!("$ref {target:?} leaves the schema; only references that start with # are followed"));
        };
        if self.open.contains(&target) || pointer.is_empty() {
            self.branching += usize::from(branch);
            self.recurs = true;
            return Ok(Size::ONE);
        }
        if let Some(&size) = self.known.get(target) {
            return Ok(size);
        }
        let Some(found) = self.root.pointer(pointer) else {
            return Err(format!("$ref {target:?} names nothing in the schema"));
        };
        if self.open.len() >= MAX_REFERENCES {
            return Err(format!("references lead through more than {MAX_REFERENCES} others"));
        }
        self.open.push(target);
        let size = self.size(found, branch)?;
        self.open.pop();
        self.known.insert(target, size);
        Ok(size)
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::tool::compile_schema;

    #[test]
    fn what_is_out_of_proportion_is_refused() {
        let defs = |n: usize, body: &dyn Fn(usize) -> Value| Value::Object((0..n).map(|i| (format!("d{i}"), body(i))).collect());
        let next = |i: usize| json!({"$ref": format!("#/$defs/d{}", i + 1)});
        let doubling = defs(30, &|i| if i == 29 { json!({"type": "string"}) } else { json!({"allOf": [next(i), next(i)]}) });
        let chain = defs(20_000, &|i| if i == 19_999 { json!({}) } else { next(i) });
        let branching =
            json!({"n": {"anyOf": [{"properties": {"x": {"$ref": "#/$defs/n"}}}, {"properties": {"x": {"$ref": "#/$defs/n"}}}]}});
        let steep = defs(20, &|i| (0..15).fold(if i == 19 { json!({}) } else { next(i) }, |s, _| json!({"allOf": [s]})));
        let again = json!({"n": (0..20).fold(json!({"properties": {"x": {"$ref": "#/$defs/n"}}}), |s, _| json!({"allOf": [s]}))});
        let deep = (0..100).fold(json!({}), |s, _| json!({"properties": {"x": s}}));
        for (schema, want) in [
            (json!({"$ref": "#/$defs/d0", "$defs": doubling}), "expanded"),
            (json!({"$ref": "#/$defs/d0", "$defs": chain}), "lead through"),
            (json!({"$ref": "#/$defs/n", "$defs": branching}), "recurs on more than one branch"),
            (deep, "nested deeper"),
            (json!({"$ref": "#/$defs/d0", "$defs": steep}), "is nested deeper than 64"),
            (json!({"$ref": "#/$defs/n", "$defs": again}), "is nested deeper than 32"),
            (json!({"$ref": "https://example.com/a"}), "leaves the schema"),
            (json!({"$ref": "#/$defs/none"}), "names nothing"),
            (json!({"$dynamicRef": "#x"}), "not supported"),
            (json!({"type": "string", "pattern": "(?=a)"}), "pattern"),
            (json!({"type": "object", "properties": {"a": {"type": "strin"}}}), "at /properties/a/type: \"strin\""),
            (json!({"type": "string", "pattern": "((a{1000}){1000}){1000}"}), "pattern"),
        ] {
            let error = compile_schema(&schema).err().unwrap_or_default();
            assert!(error.contains(want), "{want}: {error:?}");
        }
    }

    #[test]
    fn what_is_usual_is_accepted_and_typed() {
        let tree = json!({"type": "object", "properties": {"root": {"$ref": "#/$defs/node"}}, "$defs": {"node": {
            "type": "object", "properties": {"name": {"type": "string"}, "left": {"$ref": "#/$defs/node"}, "right": {"$ref": "#/$defs/node"}}}}});
        let nested = (0..20).fold(json!({"type": "integer"}), |s, _| json!({"type": "object", "properties": {"x": s}}));
        for schema in [tree.clone(), nested, json!(true), json!({})] {
            assert!(compile_schema(&schema).is_ok(), "{schema}");
            let _ = args(&schema, "t");
        }
        let Ty::Object(root) = args(&tree, "t") else { panic!("an object") };
        assert!(matches!(&root.fields["root"].ty, Ty::Object(node) if node.fields["name"].ty == Ty::STRING));
    }

    #[test]
    fn the_deepest_schemas_fit_a_small_stack() {
        let small = std::thread::Builder::new().stack_size(1536 * 1024).spawn(|| {
            let wide = (0..30).fold(json!({"type": "integer"}), |s, _| json!({"allOf": [s]}));
            let again = json!({"$ref": "#/$defs/n", "$defs": {"n": (0..13).fold(json!({"properties": {"x": {"$ref": "#/$defs/n"}}}), |s, _| json!({"allOf": [s]}))}});
            let input = (0..31).fold(json!({"x": 5}), |v, _| json!({"x": v}));
            for schema in [wide, again] {
                let validator = compile_schema(&schema).unwrap_or_else(|e| panic!("{e}"));
                let _ = (validator.is_valid(&input), validator.iter_errors(&input).count());
            }
        });
        assert!(small.unwrap().join().is_ok());
    }

    #[test]
    fn combinations() {
        let ty = |schema: Value| args(&json!({"type": "object", "required": ["x"], "properties": {"x": schema}}), "t");
        for (schema, want) in [
            (json!({"type": ["string", "null"]}), Ty::STRING.nullable()),
            (json!({"anyOf": [{"type": "integer"}, {"type": "null"}]}), Ty::Int.nullable()),
            (json!({"oneOf": [{"type": "integer"}, {"type": "number"}]}), Ty::Double),
            (json!({"oneOf": [{"type": "integer"}, {"type": "string"}]}), Ty::Dyn),
            (json!({"enum": ["a", "b"]}), Ty::Str(Some(Arc::new(vec!["a".into(), "b".into()])))),
            (json!({"const": 5}), Ty::Int),
            (json!({"enum": [1, "a"]}), Ty::Dyn),
            (json!({"type": "array"}), Ty::list(Ty::Dyn)),
            (json!({"type": "object"}), Ty::Map(Arc::new(Ty::Dyn))),
            (json!({"type": "object", "additionalProperties": {"type": "number"}}), Ty::Map(Arc::new(Ty::Double))),
            (json!({"allOf": [{"type": "number"}, {"type": "integer"}]}), Ty::Int),
        ] {
            let Ty::Object(object) = ty(schema.clone()) else { panic!("an object") };
            assert_eq!(object.fields["x"].ty, want, "{schema}");
        }
        let both = args(
            &json!({"allOf": [{"properties": {"a": {"type": "string"}}, "required": ["a"]}, {"properties": {"b": {"type": "integer"}}}]}),
            "t",
        );
        let either = args(
            &json!({"oneOf": [{"properties": {"a": {"type": "string"}}, "required": ["a"]}, {"properties": {"b": {"type": "integer"}}}]}),
            "t",
        );
        let names = |ty: &Ty| match ty {
            Ty::Object(o) => o.fields.iter().map(|(n, f)| (n.clone(), f.required)).collect::<Vec<_>>(),
            _ => Vec::new(),
        };
        assert_eq!(names(&both), [("a".to_owned(), true), ("b".to_owned(), false)]);
        assert_eq!(names(&either), [("a".to_owned(), false), ("b".to_owned(), false)]);
    }
}
