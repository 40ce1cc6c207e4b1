//! Link settings of the Node addon.

fn main() {
    #[cfg(feature = "node")]
    {
        napi_build::setup();
        // Node unloads an addon that only worker threads had loaded when the last of them ends, which is what every
        // hot reload does. Our Tokio threads would then run unmapped code, so the library stays for the life of the process.
        if std::env::var("CARGO_CFG_TARGET_OS").as_deref() == Ok("linux") {
            println!("cargo:rustc-cdylib-link-arg=-Wl,-z,nodelete");
        }
    }
}
