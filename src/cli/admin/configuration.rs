//! The configuration in force, and all settings that there are.

use std::io::{self, IsTerminal};

use super::args::ClientOptions;
use super::client::{Client, ClientError, path};
use super::show;
use super::table::{Align, Paint, Table};
use super::units::plain;
use crate::admin::model::ConfigText;
use crate::config::{self, SettingSource};

pub(super) async fn in_force(options: &ClientOptions, sources: bool) -> Result<(), ClientError> {
    let config: ConfigText = Client::new(options)?.get(&path(&["config"])).await?;
    if sources {
        show(options, &config, |config, paint| {
            sources_table(config, paint)
        });
        return Ok(());
    }
    show(options, &config, |config, _| {
        let end = if config.ron.ends_with('\n') { "" } else { "\n" };
        format!("{}{end}", config.ron)
    });
    // Comments at the start are for the reader, who may have sent the text to a file.
    if !io::stdout().is_terminal() && !options.json {
        let comments = config
            .ron
            .lines()
            .map_while(|line| line.strip_prefix("// "));
        comments.for_each(|comment| crate::cli::say(&format_args!("warning: {}", plain(comment))));
    }
    Ok(())
}

/// The settings that are not at their defaults.
fn sources_table(config: &ConfigText, paint: Paint) -> String {
    let columns = [
        ("SETTING", Align::Left),
        ("FROM", Align::Left),
        ("VALUE", Align::Left),
    ];
    let mut table = Table::new(&columns);
    for setting in &config.settings {
        let from = match setting.from {
            SettingSource::Default => continue,
            SettingSource::File => "file or flag",
            SettingSource::Command => "command",
            SettingSource::Discovery => "discovery",
        };
        table.row([
            plain(&setting.path).into(),
            from.into(),
            plain(&setting.value.to_string()).into(),
        ]);
    }
    let more = match config.more {
        0 => String::new(),
        more => format!("and {more} more\n"),
    };
    table.text(paint) + &more
}

/// Prints the settings at a path, or the JSON schema of all. Needs no balancer.
pub(super) fn reference(at: &str, is_json: bool, as_schema: bool) -> Result<(), ClientError> {
    let settings = || {
        let found = config::settings_at(at.trim_matches('.'));
        found.map_err(|error| ClientError::Usage(error.to_string()))
    };
    let text = match (as_schema, is_json) {
        (true, _) => format!("{:#}\n", config::schema()),
        (false, true) => format!("{:#}\n", config::reference_json(&settings()?)),
        (false, false) => config::reference(settings()?),
    };
    // A reader that closed standard output does not need the rest.
    let _ = super::print(&text);
    Ok(())
}
