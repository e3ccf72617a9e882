//! Lists the migrations for [`schema`](src/schema.rs), which embeds them.
//!
//! It replaces `sqlx::migrate!`, which compiles sqlx, its Postgres driver and tokio a second time
//! for the build itself.

use std::fmt::Write as _;
use std::path::PathBuf;
use std::{env, fs};

fn main() {
    println!("cargo::rerun-if-changed=../../migrations");
    let root = PathBuf::from(env::var_os("CARGO_MANIFEST_DIR").expect("set by cargo"));
    let folder = root.join("../../migrations");
    let entries = fs::read_dir(&folder).expect("the folder of migrations can be read");
    let mut files: Vec<PathBuf> = entries
        .map(|entry| entry.expect("its files can be listed").path())
        .filter(|path| path.extension().is_some_and(|end| end == "sql"))
        .collect();
    files.sort();
    let mut list = String::from("&[\n");
    for file in files {
        let name = file
            .file_stem()
            .expect("a file has a name")
            .to_string_lossy();
        let path = file.canonicalize().expect("the file exists");
        writeln!(list, "    ({name:?}, include_str!({path:?})),").expect("a string takes all text");
    }
    list.push_str("]\n");
    let out = PathBuf::from(env::var_os("OUT_DIR").expect("set by cargo"));
    fs::write(out.join("migrations.rs"), list).expect("the list is written");
}
