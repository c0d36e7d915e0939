//! From the merged settings of all sources to a [`Config`].

use crate::{
    app_options::paste_file, config::Config, error::ConfigError, gunicorn, layers::MergedConfig, show,
};

impl Config {
    /// Converts merged settings to a [`Config`].
    ///
    /// # Errors
    ///
    /// If a setting of gunicorn is in use that this server rejects.
    pub fn resolve(merged: MergedConfig, mut warnings: Vec<String>) -> Result<Self, ConfigError> {
        warnings.extend(gunicorn::check_unsupported(&merged.matches)?);
        warnings.extend(merged.config.http2.warnings());
        let shown = merged.config.configuration.print_config.then(|| show::toml(&merged));
        let mut config = Self { warnings, shown, ..merged.config };
        if let Some(Ok((file, _))) = config.source.paste.as_deref().map(paste_file) {
            let pattern = glob::Pattern::new(&glob::Pattern::escape(&file.to_string_lossy()));
            config.development.reload_extra_file.extend(pattern);
        }
        Ok(config)
    }
}

#[cfg(test)]
impl Config {
    /// The settings of a command line alone.
    pub(crate) fn parse_words(words: &str) -> Result<Self, String> {
        let layer = crate::layers::ConfigLayer::from_args("words", words.split_whitespace().map(Into::into));
        let merged = layer.and_then(MergedConfig::of).map_err(|error| error.to_string())?;
        Config::resolve(merged, Vec::new()).map_err(|error| error.to_string())
    }
}
