//! `outriggerctl completions`: what a shell needs to complete its command line.

use std::process::ExitCode;

use clap::{Args, CommandFactory};
use clap_complete::{Shell, generate};

use super::table::print;

#[derive(Debug, Args)]
pub struct Arguments {
    #[arg(value_enum)]
    shell: Shell,
}

pub fn run(arguments: &Arguments) -> anyhow::Result<ExitCode> {
    let mut text = Vec::new();
    generate(arguments.shell, &mut super::Ctl::command(), "outriggerctl", &mut text);
    print(&String::from_utf8_lossy(&text))?;
    Ok(ExitCode::SUCCESS)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_shell_knows_the_commands() {
        for shell in [Shell::Bash, Shell::Zsh, Shell::Fish] {
            let mut text = Vec::new();
            generate(shell, &mut crate::cli::Ctl::command(), "outriggerctl", &mut text);
            let text = String::from_utf8(text).unwrap();
            assert!(["explain", "proxies", "tap", "top"].iter().all(|name| text.contains(name)), "{shell}");
        }
    }
}
