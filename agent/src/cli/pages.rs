//! Completions and manual pages, from the words themselves: they can't go
//! out of date.

use std::path::Path;

use clap::{Command, CommandFactory};
use clap_complete::Shell;
use clap_mangen::Man;

use super::Cli;

/// A shell's completions, for its directory of them.
pub fn completions(shell: Shell) -> String {
    let mut text = Vec::new();
    clap_complete::generate(shell, &mut Cli::command(), "webhost-agent", &mut text);
    String::from_utf8_lossy(&text).into_owned()
}

/// Writes `webhost-agent.1` and one page for each command that people use
/// into `dir`; returns how many.
///
/// # Errors
/// When a file can't be written.
pub fn man(dir: &Path) -> std::io::Result<usize> {
    let mut command = Cli::command();
    // With the commands' full names in their usage.
    command.build();
    let mut written = 0;
    write(dir, &command, "webhost-agent", &mut written)?;
    Ok(written)
}

fn write(dir: &Path, command: &Command, name: &str, written: &mut usize) -> std::io::Result<()> {
    let mut page = Vec::new();
    Man::new(command.clone()).title(name.to_uppercase()).render(&mut page)?;
    std::fs::write(dir.join(format!("{name}.1")), page)?;
    *written += 1;
    for part in command.get_subcommands() {
        if !part.is_hide_set() && part.get_name() != "help" {
            write(dir, part, &format!("{name}-{}", part.get_name()), written)?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_words_are_sound() {
        Cli::command().debug_assert();
    }

    #[test]
    fn every_shell_is_told_of_every_command() {
        for shell in [Shell::Bash, Shell::Zsh, Shell::Fish] {
            let text = completions(shell);
            for word in ["status", "check-config", "postgres-grants", "docker-proxy"] {
                assert!(text.contains(word), "{shell} lacks {word}");
            }
        }
    }

    #[test]
    fn the_pages_say_what_the_help_says() {
        let dir = tempfile::tempdir().expect("a directory");
        let written = man(dir.path()).expect("writes");
        let pages = std::fs::read_dir(dir.path()).expect("a directory").count();
        assert_eq!(written, pages);
        let status = std::fs::read_to_string(dir.path().join("webhost-agent-status.1"))
            .expect("a page for each command");
        assert!(status.contains("Exit code 0: healthy"), "{status}");
        assert!(!dir.path().join("webhost-agent-mover.1").exists(), "that one is not for people");
    }
}
