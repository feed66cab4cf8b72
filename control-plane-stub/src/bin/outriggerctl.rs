//! The operator's tool.

fn main() -> std::process::ExitCode {
    outrigger_control::cli::ctl()
}
