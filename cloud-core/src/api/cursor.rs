//! Cursors of simple lists: where to go on, bound to the question that they belong to.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use foldhash::fast::FixedState;
use std::hash::BuildHasher;

/// A cursor to after these keys of a question.
pub(super) fn encode(keys: &[&str], question: &str) -> String {
    let text = serde_json::json!([hash(question), keys]).to_string();
    URL_SAFE_NO_PAD.encode(text)
}

/// The keys, if the cursor is of that question.
pub(super) fn decode(text: &str, question: &str) -> Option<Vec<String>> {
    let bytes = URL_SAFE_NO_PAD.decode(text).ok()?;
    let (of, keys): (u64, Vec<String>) = serde_json::from_slice(&bytes).ok()?;
    let is_clean = keys.iter().all(|key| !key.contains('\0'));
    (of == hash(question) && is_clean).then_some(keys)
}

/// No secret: it finds mistakes, not forgeries, which could do no harm.
fn hash(question: &str) -> u64 {
    FixedState::with_seed(1).hash_one(question)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cursor_belongs_to_its_question() {
        let cursor = encode(&["f", "a\"b"], "devices q=x");
        assert_eq!(decode(&cursor, "devices q=x"), Some(vec!["f".into(), "a\"b".into()]));
        assert_eq!(decode(&cursor, "devices q=y"), None);
        assert_eq!(decode("x", "devices q=x"), None);
    }
}
