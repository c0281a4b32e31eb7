//! The program `buoyctl`.

use std::process::ExitCode;

fn main() -> ExitCode {
    buoyctl::run(std::env::args_os())
}
