//! `keymoat completions` and `keymoat man`: what shells and readers want to know of the commands, made from the same
//! definitions that the commands are read with.

use clap::{Args, CommandFactory as _};
use clap_complete::Shell;
use clap_mangen::Man;
use clap_mangen::roff::{Roff, roman};

use crate::cli::Cli;
use crate::error::CliError;
use crate::output;

/// Flags of `completions`.
#[derive(Debug, Clone, Args)]
pub struct Completions {
    /// The shell.
    #[arg(value_enum)]
    shell: Shell,
}

/// Writes a completion script.
///
/// # Errors
/// None; the signature is that of every command.
pub fn completions(flags: &Completions) -> Result<u8, CliError> {
    let mut script = Vec::new();
    clap_complete::generate(flags.shell, &mut Cli::command(), NAME, &mut script);
    output::bytes(&script);
    Ok(0)
}

/// Writes the manual page: one page with every command.
///
/// # Errors
/// When it cannot be made.
pub fn man() -> Result<u8, CliError> {
    let page = page().map_err(|e| CliError::new(format!("cannot write the manual page: {e}")))?;
    output::bytes(&page);
    Ok(0)
}

fn page() -> std::io::Result<Vec<u8>> {
    let mut command = Cli::command();
    command.build();
    let man = Man::new(command.clone()).manual("Keymoat");
    let mut page = Vec::new();
    man.render_title(&mut page)?;
    man.render_name_section(&mut page)?;
    man.render_synopsis_section(&mut page)?;
    man.render_description_section(&mut page)?;
    man.render_options_section(&mut page)?;
    let mut commands = Roff::new();
    commands.control("SH", ["COMMANDS"]);
    describe(&mut command, NAME, &mut commands);
    commands.to_writer(&mut page)?;
    man.render_version_section(&mut page)?;
    Ok(page)
}

/// Adds the help of every visible command below this one, depth first.
fn describe(command: &mut clap::Command, name: &str, page: &mut Roff) {
    for below in
        command.get_subcommands_mut().filter(|below| !below.is_hide_set() && below.get_name() != "help")
    {
        let name = format!("{name} {}", below.get_name());
        // The page is the same for everybody: neither what every command takes nor what this environment says.
        let plain =
            |arg: clap::Arg| arg.clone().hide(arg.is_global_set() || arg.is_hide_set()).hide_env_values(true);
        let help = below.clone().mut_args(plain).render_long_help();
        page.control("SS", [name.as_str()]);
        page.control("nf", []);
        for text in help.to_string().lines() {
            page.text([roman(text)]);
        }
        page.control("fi", []);
        describe(below, &name, page);
    }
}

const NAME: &str = "keymoat";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_page_names_every_command() {
        let page = String::from_utf8(page().unwrap()).unwrap();
        for command in ["keymoat put", "keymoat policy explain", "keymoat token create", "keymoat rekey"] {
            assert!(
                page.contains(&format!(".SS \"{command}")) || page.contains(&format!(".SS {command}")),
                "{command}"
            );
        }
        assert!(!page.contains(".SS \"keymoat man\""));
    }

    #[test]
    fn commands_are_defined_without_contradiction() {
        Cli::command().debug_assert();
    }
}
