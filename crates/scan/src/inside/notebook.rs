//! Notebooks of Jupyter: what was written into their cells, and what came out.

use std::io;

use serde_json::Value;

use super::Unpack;

impl Unpack<'_> {
    pub(super) fn notebook(&mut self, bytes: Vec<u8>) -> io::Result<()> {
        let Ok(notebook) = serde_json::from_slice::<Value>(&bytes) else {
            self.trouble("is no notebook and was searched as it is");
            return self.plain(&mut bytes.as_slice());
        };
        let cells = notebook.get("cells").and_then(Value::as_array).into_iter().flatten();
        // Before version 4 of the format cells stood in worksheets.
        let sheets = notebook.get("worksheets").and_then(Value::as_array).into_iter().flatten();
        let of_sheets = sheets.filter_map(|sheet| sheet.get("cells").and_then(Value::as_array)).flatten();
        for (number, cell) in cells.chain(of_sheets).enumerate() {
            let name = format!("cell {}", number + 1);
            for (part, of) in
                [("source", name.clone()), ("input", name.clone()), ("outputs", format!("{name}, output"))]
            {
                let mut text = String::new();
                cell.get(part).into_iter().for_each(|part| strings(part, &mut text));
                if !text.is_empty() {
                    self.within(&of, |unpack| unpack.plain(&mut text.as_bytes()))?;
                }
            }
        }
        let mut metadata = String::new();
        notebook.get("metadata").into_iter().for_each(|part| strings(part, &mut metadata));
        self.plain(&mut metadata.as_bytes())
    }
}

/// All strings in a value; a list of lines is one text. Pictures are left out.
fn strings(value: &Value, text: &mut String) {
    match value {
        Value::String(line) => text.push_str(line),
        Value::Array(values) => values.iter().for_each(|value| {
            strings(value, text);
            if !value.is_string() && !text.is_empty() {
                text.push('\n');
            }
        }),
        Value::Object(members) => {
            members.iter().filter(|(name, _)| !is_left_out(name)).for_each(|(_, value)| {
                strings(value, text);
                text.push('\n');
            })
        }
        _ => {}
    }
}

fn is_left_out(member: &str) -> bool {
    let is_picture = member.starts_with("image/") && member != "image/svg+xml";
    is_picture || matches!(member, "output_type" | "name")
}
