//! `tokens …` and `groups …`: what an operator does before there is any token.

use std::path::{Path, PathBuf};

use anyhow::{Context, bail};
use clap::Subcommand;
use penstock_common::clock::{Clock, SystemClock};
use penstock_common::event::UnixMicros;
use uuid::Uuid;

use super::ConfigArgs;
use crate::access::Role;
use crate::access::secret::{Kind, Secret};
use crate::config::CoreConfig;
use crate::groups::parse;
use crate::store::access::{AccessStore, TokenEntry};
use crate::store::groups::{GroupStore, Import};
use crate::store::postgres;

pub(super) const DAY_MICROS: i64 = 86_400 * 1_000_000;
/// Groups shown by `groups list`.
const LISTED_MAX: usize = 10_000;

/// About tokens.
#[derive(Debug, Subcommand)]
pub enum Tokens {
    /// Makes a token and prints it, this once: only its hash is kept.
    Create {
        /// What it is for, e.g. the person's or the program's name.
        #[arg(long)]
        name: String,
        /// `viewer`, `analyst` or `admin`.
        #[arg(long)]
        role: Role,
        /// It ends after so many days; without it, never.
        #[arg(long)]
        days: Option<u32>,
        /// The configuration.
        #[command(flatten)]
        config: ConfigArgs,
    },
    /// Lists all tokens.
    List {
        /// The configuration.
        #[command(flatten)]
        config: ConfigArgs,
    },
    /// Ends a token, within seconds.
    Revoke {
        /// As in the list.
        id: Uuid,
        /// The configuration.
        #[command(flatten)]
        config: ConfigArgs,
    },
}

/// About device groups.
#[derive(Debug, Subcommand)]
pub enum GroupsCommand {
    /// Replaces all groups by those of a file (.json or .csv).
    Import {
        /// `{"groups": […]}`, or CSV with the columns group,fleet,device.
        file: PathBuf,
        /// Only changes the groups that the file names.
        #[arg(long)]
        patch: bool,
        /// The configuration.
        #[command(flatten)]
        config: ConfigArgs,
    },
    /// Lists the groups.
    List {
        /// The configuration.
        #[command(flatten)]
        config: ConfigArgs,
    },
}

impl Tokens {
    /// Its configuration.
    pub const fn config(&self) -> &ConfigArgs {
        match self {
            Self::Create { config, .. } | Self::List { config } | Self::Revoke { config, .. } => {
                config
            }
        }
    }
}

impl GroupsCommand {
    /// Its configuration.
    pub const fn config(&self) -> &ConfigArgs {
        match self {
            Self::Import { config, .. } | Self::List { config } => config,
        }
    }
}

/// Who runs a command, for the audit log.
pub(super) fn who() -> String {
    format!("command line of {}", std::env::var("USER").unwrap_or_else(|_| "?".into()))
}

/// `tokens …`.
///
/// # Errors
/// When the catalog is away, or there is no such token.
pub async fn tokens(config: &CoreConfig, command: Tokens) -> anyhow::Result<()> {
    let pool = postgres::pool(&config.catalog)?;
    postgres::migrate(&pool).await?;
    let store = AccessStore::new(pool);
    match command {
        Tokens::Create { name, role, days, .. } => {
            if name.trim().is_empty() || name.chars().any(char::is_control) {
                bail!("--name is empty or has control characters");
            }
            let secret = Secret::random(Kind::Token);
            let now = SystemClock.now().0;
            let token = TokenEntry {
                token_id: Uuid::new_v4(),
                name,
                role: role.name().to_owned(),
                created_at: now,
                expires_at: days.map(|days| now + i64::from(days) * DAY_MICROS),
                revoked_at: None,
            };
            store.create_token(&token, &secret.hash(), &who()).await?;
            // Alone on standard output, for scripts.
            println!("{}", secret.reveal());
            eprintln!(
                "token {} for {:?}, role {role}; it is shown only now",
                token.token_id, token.name
            );
        }
        Tokens::List { .. } => {
            let now = SystemClock.now().0;
            for token in store.tokens().await? {
                let end = match (token.revoked_at, token.expires_at) {
                    (Some(at), _) => format!("revoked {}", UnixMicros(at).to_rfc3339()),
                    (None, Some(at)) if at <= now => "expired".to_owned(),
                    (None, Some(at)) => format!("until {}", UnixMicros(at).to_rfc3339()),
                    (None, None) => "for ever".to_owned(),
                };
                println!("{}  {:8}  {end:40}  {}", token.token_id, token.role, token.name);
            }
        }
        Tokens::Revoke { id, .. } => {
            if !store.revoke_token(id, &who()).await? {
                bail!("there is no valid token {id}; see `cloud-core tokens list`");
            }
            println!("revoked {id}");
        }
    }
    Ok(())
}

/// `groups …`.
///
/// # Errors
/// When the file can't be understood, or the catalog is away.
pub async fn groups(config: &CoreConfig, command: GroupsCommand) -> anyhow::Result<()> {
    let pool = postgres::pool(&config.catalog)?;
    postgres::migrate(&pool).await?;
    let store = GroupStore::new(pool);
    match command {
        GroupsCommand::Import { file, patch, .. } => {
            let groups = read(&file)?;
            let how = if patch { Import::Patch } else { Import::Replace };
            let done = store.import(&groups, how, (&who(), None)).await?;
            println!(
                "{} groups with {} members; {} added, {} removed",
                done.groups, done.members, done.added, done.removed
            );
        }
        GroupsCommand::List { .. } => {
            for (name, devices) in store.list("", "", LISTED_MAX).await? {
                println!("{devices:8}  {name}");
            }
        }
    }
    Ok(())
}

fn read(file: &Path) -> anyhow::Result<crate::store::groups::Groups> {
    let text = std::fs::read_to_string(file).with_context(|| format!("read {}", file.display()))?;
    let groups = match file.extension().and_then(|extension| extension.to_str()) {
        Some("json") => parse::json(&text),
        Some("csv") => parse::csv(&text),
        _ => bail!("{}: want a name that ends in .json or .csv", file.display()),
    };
    groups.map_err(|mistakes| anyhow::anyhow!("{}: {}", file.display(), mistakes.join("\n  ")))
}
