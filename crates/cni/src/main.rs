//! `buoy-cni`, installed as `calico` and `calico-ipam`.

use std::process::ExitCode;

fn main() -> ExitCode {
    buoy_cni::main()
}
