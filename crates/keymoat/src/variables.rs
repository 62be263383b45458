//! The environment variables that Keymoat itself reads. Read once, before there is a second thread; secrets are taken
//! out of the environment in the same breath.

use std::path::PathBuf;

use keymoat_crypto::{SecretBytes, take_variable};

/// What the environment says.
#[derive(Debug)]
pub struct Variables {
    /// `KEYMOAT_DATA_DIR`.
    pub data_dir: Option<PathBuf>,
    /// `KEYMOAT_DATABASE`, taken.
    pub database: Option<SecretBytes>,
    /// `KEYMOAT_CONFIG_DIR`: in place of `<config home>/keymoat`.
    pub config_dir: Option<PathBuf>,
    /// `XDG_DATA_HOME`.
    pub xdg_data_home: Option<PathBuf>,
    /// `XDG_CONFIG_HOME`.
    pub xdg_config_home: Option<PathBuf>,
    /// `HOME`.
    pub home: Option<PathBuf>,
    /// `KEYMOAT_MASTER_KEY`, taken.
    pub master_key: Option<SecretBytes>,
    /// `KEYMOAT_MASTER_KEY_FILE`.
    pub master_key_file: Option<PathBuf>,
    /// `KEYMOAT_MASTER_KEY_COMMAND`.
    pub master_key_command: Option<String>,
    /// `KEYMOAT_PASSPHRASE`, taken.
    pub passphrase: Option<SecretBytes>,
    /// `KEYMOAT_PASSPHRASE_FILE`.
    pub passphrase_file: Option<PathBuf>,
    /// `KEYMOAT_SHARES_FILE`: one share a line.
    pub shares_file: Option<PathBuf>,
    /// `NOTIFY_SOCKET`, set by systemd.
    pub notify_socket: Option<PathBuf>,
    /// `CREDENTIALS_DIRECTORY`, set by systemd.
    pub credentials_directory: Option<PathBuf>,
    /// `KEYMOAT_TOKEN`, taken.
    pub token: Option<SecretBytes>,
    /// `KEYMOAT_TOKEN_FILE`.
    pub token_file: Option<PathBuf>,
    /// `KEYMOAT_CA`: the authority of a server elsewhere, in place of those that this machine trusts.
    pub ca: Option<PathBuf>,
    /// `KEYMOAT_CLIENT_CERT`: what is shown to a server that asks for a certificate.
    pub client_cert: Option<PathBuf>,
    /// `KEYMOAT_CLIENT_KEY`: its private key.
    pub client_key: Option<PathBuf>,
    /// `KEYMOAT_MODULE`: the calling module that records name.
    pub module: Option<String>,
    /// `GIT_INDEX_FILE`: what git tells a hook that it has staged.
    pub git_index_file: Option<PathBuf>,
    /// `HTTPS_PROXY` or `https_proxy`: the proxy through which providers are asked. It may hold a password, and is left
    /// where it is for the programs that are started.
    pub https_proxy: Option<SecretBytes>,
    /// `NO_PROXY` or `no_proxy`: who is asked without it.
    pub no_proxy: Option<String>,
}

impl Variables {
    /// Lets go of the secrets among them, for whoever goes on without: a server that is sealed holds no key.
    pub fn forget_secrets(&mut self) {
        (self.master_key, self.passphrase, self.token) = (None, None, None);
    }

    /// The places that it names, without the secrets that it held: what a server may look up again.
    pub fn without_secrets(&self) -> Self {
        Self {
            data_dir: self.data_dir.clone(),
            database: None,
            config_dir: self.config_dir.clone(),
            xdg_data_home: self.xdg_data_home.clone(),
            xdg_config_home: self.xdg_config_home.clone(),
            home: self.home.clone(),
            master_key: None,
            master_key_file: self.master_key_file.clone(),
            master_key_command: self.master_key_command.clone(),
            passphrase: None,
            passphrase_file: self.passphrase_file.clone(),
            shares_file: self.shares_file.clone(),
            notify_socket: self.notify_socket.clone(),
            credentials_directory: self.credentials_directory.clone(),
            token: None,
            token_file: self.token_file.clone(),
            ca: self.ca.clone(),
            client_cert: self.client_cert.clone(),
            client_key: self.client_key.clone(),
            module: self.module.clone(),
            git_index_file: None,
            https_proxy: None,
            no_proxy: None,
        }
    }

    /// Reads the environment. Must be called before there is a second thread.
    #[expect(clippy::disallowed_methods, reason = "this is where the environment enters the program")]
    pub fn take() -> Self {
        let path = |name: &str| std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
        let text = |name: &str| std::env::var(name).ok().filter(|value| !value.is_empty());
        let secret = |name: &str| take_variable(name).filter(|value| !value.is_empty());
        Self {
            data_dir: path("KEYMOAT_DATA_DIR"),
            database: secret("KEYMOAT_DATABASE"),
            config_dir: path("KEYMOAT_CONFIG_DIR"),
            xdg_data_home: path("XDG_DATA_HOME"),
            xdg_config_home: path("XDG_CONFIG_HOME"),
            home: path("HOME"),
            master_key: secret("KEYMOAT_MASTER_KEY"),
            master_key_file: path("KEYMOAT_MASTER_KEY_FILE"),
            master_key_command: text("KEYMOAT_MASTER_KEY_COMMAND"),
            passphrase: secret("KEYMOAT_PASSPHRASE"),
            passphrase_file: path("KEYMOAT_PASSPHRASE_FILE"),
            shares_file: path("KEYMOAT_SHARES_FILE"),
            notify_socket: path("NOTIFY_SOCKET"),
            credentials_directory: path("CREDENTIALS_DIRECTORY"),
            // One that is set and empty is a mistake, not a wish to be somebody else.
            token: take_variable("KEYMOAT_TOKEN"),
            token_file: path("KEYMOAT_TOKEN_FILE"),
            ca: path("KEYMOAT_CA"),
            client_cert: path("KEYMOAT_CLIENT_CERT"),
            client_key: path("KEYMOAT_CLIENT_KEY"),
            module: text("KEYMOAT_MODULE"),
            git_index_file: path("GIT_INDEX_FILE"),
            https_proxy: text("HTTPS_PROXY")
                .or_else(|| text("https_proxy"))
                .map(|address| SecretBytes::new(address.into_bytes())),
            no_proxy: text("NO_PROXY").or_else(|| text("no_proxy")),
        }
    }
}
