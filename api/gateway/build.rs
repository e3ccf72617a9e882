//! The page is embedded into the program, so it has to be built first.

fn main() {
    println!("cargo::rerun-if-changed=../web/dist");
    if !std::path::Path::new("../web/dist/index.html").exists() {
        println!(
            "cargo::error=api/web/dist is missing: build the page first, with \
             `npm --prefix api/web ci && npm --prefix api/web run build` \
             (deploy/local/up and tests/run do it for you)"
        );
    }
}
