//! What forwarding fields of a request mean, and from which peers they are accepted: gunicorn's rules and
//! `--forwarded-fields`. No Python.
//!
//! The rule for a field depends on its name only and is stored with the name's environ key (see
//! `header_key_cache`). Whether the sender is trusted is a property of the connection. So a request only pays for
//! rules of fields that it has.

use mlws_http1::{Forwarded, ForwardedField};

use mlws_server::TrustedNetworks;

/// The settings.
#[derive(Debug, Default)]
pub struct ForwardingPolicy {
    /// The trusted peers, needed here to recognize proxies behind the nearest one.
    pub trusted: TrustedNetworks,
    /// Field names, each with the value that means https.
    pub scheme_fields: Vec<(String, String)>,
    /// Field names with underscores, or `*`.
    pub forwarder_fields: Vec<String>,
    pub header_map: HeaderMap,
    /// The default of `SCRIPT_NAME`, without a trailing slash.
    pub root: String,
    /// The fields of `--forwarded-fields`. If there are none, the application interprets such fields itself.
    pub forwarded_fields: Vec<ForwardedField>,
}

/// What happens to fields with an underscore in their name.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum HeaderMap {
    #[default]
    Drop,
    /// Reject the request.
    Refuse,
    Dangerous,
}

/// How a field differs from all others.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HeaderRule {
    pub acceptance: Acceptance,
    effect: Effect,
}

/// Whether the field becomes part of the environ.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Acceptance {
    Always,
    FromTrusted,
    FromTrustedOrRefuse,
    Refuse,
    Never,
}

/// What the field means, from a trusted proxy.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Effect {
    Nothing,
    /// The scheme, by the scheme field with this index.
    Scheme(usize),
    ScriptName,
    Forwarded(ForwardedField),
}

/// An error, with its status and a message for the client.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ForwardingError {
    pub status: u16,
    pub message: &'static str,
}

impl ForwardingError {
    const UNDERSCORE: Self = Self { status: 400, message: "a field name contains an underscore" };
    const SCHEME: Self =
        Self { status: 400, message: "forwarding fields contradict each other about the scheme" };
    const FORWARDED: Self =
        Self { status: 400, message: "forwarding fields are invalid or contradict each other" };
    const OUTSIDE: Self = Self { status: 500, message: "the path does not begin with SCRIPT_NAME" };
}

impl ForwardingPolicy {
    /// The rule for a field with this name. `None` if it is like all others.
    pub fn rule(&self, name: &[u8]) -> Option<HeaderRule> {
        let rule = |acceptance, effect| Some(HeaderRule { acceptance, effect });
        let is = |other: &str| name.eq_ignore_ascii_case(other.as_bytes());
        if is("proxy") {
            return rule(Acceptance::Never, Effect::Nothing); // `HTTP_PROXY`, which programs use as a setting
        }
        let has_underscore = name.contains(&b'_');
        if let Some(field) = ForwardedField::from_name(name).filter(|_| !self.forwarded_fields.is_empty()) {
            return match self.header_map {
                _ if !has_underscore && self.forwarded_fields.contains(&field) => {
                    rule(Acceptance::FromTrusted, Effect::Forwarded(field))
                }
                HeaderMap::Refuse if has_underscore => rule(Acceptance::Refuse, Effect::Nothing),
                _ => rule(Acceptance::Never, Effect::Nothing),
            };
        }
        let is_forwarder = self.forwarder_fields.iter().any(|other| is(other) || other == "*");
        let scheme = self.scheme_fields.iter().position(|(other, _)| is(other));
        // X-Y and X_Y are the same key in the environ. A proxy that sets X_Y passes on X-Y from any client.
        let is_twin = |other: &String| {
            other.contains('_')
                && other.replace('_', "-").eq_ignore_ascii_case(&String::from_utf8_lossy(name))
        };
        if scheme.is_none()
            && self.header_map != HeaderMap::Dangerous
            && self.forwarder_fields.iter().any(is_twin)
        {
            return rule(Acceptance::Never, Effect::Nothing);
        }
        let effect = match scheme {
            Some(index) => Effect::Scheme(index),
            None if is_forwarder && is("script_name") => Effect::ScriptName,
            None => Effect::Nothing,
        };
        let acceptance = match (self.header_map, is_forwarder) {
            _ if !has_underscore => Acceptance::Always,
            (HeaderMap::Dangerous, _) => Acceptance::Always,
            (HeaderMap::Drop, true) => Acceptance::FromTrusted,
            (HeaderMap::Drop, false) => Acceptance::Never,
            (HeaderMap::Refuse, true) => Acceptance::FromTrustedOrRefuse,
            (HeaderMap::Refuse, false) => Acceptance::Refuse,
        };
        if (acceptance, effect) == (Acceptance::Always, Effect::Nothing) {
            None
        } else {
            rule(acceptance, effect)
        }
    }
}

/// The meaning of the fields of a request so far.
#[derive(Debug, Default)]
pub struct ForwardedInfo<'a> {
    pub https: Option<bool>,
    script: Option<&'a [u8]>,
    forwarded: Vec<(ForwardedField, &'a [u8])>,
}

impl<'a> ForwardedInfo<'a> {
    /// Applies a field for which there is a rule. Returns whether it becomes part of the environ.
    pub fn apply(
        &mut self,
        policy: &ForwardingPolicy,
        rule: HeaderRule,
        value: &'a [u8],
        peer_is_trusted: bool,
    ) -> Result<bool, ForwardingError> {
        if peer_is_trusted {
            match rule.effect {
                Effect::Nothing => {}
                Effect::Scheme(index) => {
                    let secure = policy.scheme_fields.get(index).map(|(_, secure)| secure.as_bytes());
                    self.set_scheme(secure == Some(value))?;
                }
                Effect::ScriptName => self.script = Some(value),
                Effect::Forwarded(field) => self.forwarded.push((field, value)),
            }
        }
        match rule.acceptance {
            Acceptance::Always => Ok(true),
            Acceptance::FromTrusted => Ok(peer_is_trusted),
            Acceptance::FromTrustedOrRefuse if peer_is_trusted => Ok(true),
            Acceptance::Never => Ok(false),
            Acceptance::FromTrustedOrRefuse | Acceptance::Refuse => Err(ForwardingError::UNDERSCORE),
        }
    }

    fn set_scheme(&mut self, https: bool) -> Result<(), ForwardingError> {
        let before = self.https.replace(https);
        if before.is_some_and(|before| before != https) { Err(ForwardingError::SCHEME) } else { Ok(()) }
    }

    /// After all fields: the combined meaning of the fields of `--forwarded-fields`.
    pub fn forwarded(&mut self, policy: &ForwardingPolicy) -> Result<Option<Forwarded<'a>>, ForwardingError> {
        if self.forwarded.is_empty() {
            return Ok(None);
        }
        let is_proxy = |address| policy.trusted.contains_explicitly(address);
        let forwarded =
            Forwarded::parse(&self.forwarded, is_proxy).map_err(|_| ForwardingError::FORWARDED)?;
        forwarded.https.map_or(Ok(()), |https| self.set_scheme(https))?;
        Ok(Some(forwarded))
    }

    /// The parts of the path that become `SCRIPT_NAME` and `PATH_INFO`.
    pub fn split_script_name<'b>(
        &self,
        policy: &'b ForwardingPolicy,
        path: &'b [u8],
    ) -> Result<(&'b [u8], &'b [u8]), ForwardingError>
    where
        'a: 'b,
    {
        let mut script = self.script.unwrap_or(policy.root.as_bytes());
        while let [rest @ .., b'/'] = script {
            script = rest;
        }
        match path.strip_prefix(script) {
            Some(rest @ ([] | [b'/', ..])) => Ok((script, rest)),
            Some(rest) if script.is_empty() => Ok((script, rest)),
            _ => Err(ForwardingError::OUTSIDE),
        }
    }
}

/// Splits a valid authority into host and port.
pub fn split_port(authority: &[u8]) -> (&[u8], Option<&[u8]>) {
    match authority.iter().rposition(|byte| b":]".contains(byte)) {
        Some(at) if authority[at] == b':' => {
            (&authority[..at], Some(&authority[at + 1..]).filter(|port| !port.is_empty()))
        }
        _ => (authority, None),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn usual() -> ForwardingPolicy {
        let scheme_fields = [("X-FORWARDED-PROTO", "https"), ("X-FORWARDED-SSL", "on")];
        ForwardingPolicy {
            scheme_fields: scheme_fields.map(|(name, value)| (name.into(), value.into())).into(),
            forwarder_fields: vec!["SCRIPT_NAME".into(), "REMOTE_USER".into()],
            ..ForwardingPolicy::default()
        }
    }

    /// The names of the fields that become part of the environ, and the scheme.
    fn apply(
        policy: &ForwardingPolicy,
        fields: &[(&str, &str)],
        peer_is_trusted: bool,
    ) -> Result<(Vec<String>, Option<bool>), u16> {
        let (mut info, mut taken) = (ForwardedInfo::default(), Vec::new());
        for (name, value) in fields {
            let taken_in = match policy.rule(name.as_bytes()) {
                None => Ok(true),
                Some(rule) => info.apply(policy, rule, value.as_bytes(), peer_is_trusted),
            };
            if taken_in.map_err(|refused| refused.status)? {
                taken.push((*name).to_owned());
            }
        }
        info.forwarded(policy).map_err(|refused| refused.status)?;
        Ok((taken, info.https))
    }

    #[test]
    fn the_scheme_of_a_proxy_is_trusted_unless_contradicted() {
        let policy = usual();
        let scheme = |fields: &[_], trusted| apply(&policy, fields, trusted).map(|(_, https)| https);
        let (https, http, on) =
            (("x-forwarded-proto", "https"), ("X-Forwarded-Proto", "http"), ("X-Forwarded-SSL", "on"));
        assert_eq!(scheme(&[https, on, https], true), Ok(Some(true)));
        assert_eq!(scheme(&[("X-Forwarded-Proto", "HTTPS")], true), Ok(Some(false)));
        assert_eq!(scheme(&[http, on], true), Err(400));
        assert_eq!(scheme(&[https, http], true), Err(400));
        assert_eq!(scheme(&[http, on, https], false), Ok(None));
    }

    #[test]
    fn fields_with_underscores_follow_the_header_map_except_from_proxies() {
        let fields = [("Script_Name", ""), ("X_Other", ""), ("X-Good", "")];
        for (header_map, trusted, others) in [
            (HeaderMap::Drop, Ok(vec!["Script_Name", "X-Good"]), Ok(vec!["X-Good"])),
            (HeaderMap::Refuse, Err(400), Err(400)),
            (
                HeaderMap::Dangerous,
                Ok(vec!["Script_Name", "X_Other", "X-Good"]),
                Ok(vec!["Script_Name", "X_Other", "X-Good"]),
            ),
        ] {
            let policy = ForwardingPolicy { header_map, ..usual() };
            let taken = |peer_is_trusted| apply(&policy, &fields, peer_is_trusted).map(|(taken, _)| taken);
            let text = |names: Result<Vec<&str>, u16>| {
                names.map(|names| names.iter().map(ToString::to_string).collect())
            };
            assert_eq!((taken(true), taken(false)), (text(trusted), text(others)), "{header_map:?}");
        }
        let refuse = ForwardingPolicy { header_map: HeaderMap::Refuse, ..usual() };
        assert!(apply(&refuse, &fields[..1], true).is_ok() && apply(&refuse, &fields[..1], false).is_err());
        let all = ForwardingPolicy { forwarder_fields: vec!["*".into()], ..usual() };
        assert_eq!(apply(&all, &fields, true).unwrap().0.len(), 3);
    }

    #[test]
    fn a_forwarder_field_with_dashes_never_reaches_its_key() {
        for header_map in [HeaderMap::Drop, HeaderMap::Refuse] {
            let policy = ForwardingPolicy { header_map, ..usual() };
            let fields = [("Remote-User", "admin"), ("remote-user", "admin"), ("Remote-Users", "")];
            for peer_is_trusted in [true, false] {
                assert_eq!(apply(&policy, &fields, peer_is_trusted), Ok((vec!["Remote-Users".into()], None)));
            }
            assert_eq!(
                apply(&policy, &[("REMOTE_USER", "bob")], true),
                Ok((vec!["REMOTE_USER".into()], None))
            );
        }
    }

    #[test]
    fn only_listed_forwarded_fields_of_proxies_are_passed_on() {
        let listed = vec![ForwardedField::For, ForwardedField::Proto];
        let policy =
            ForwardingPolicy { forwarded_fields: listed, forwarder_fields: vec!["*".into()], ..usual() };
        let fields = [
            ("x-forwarded-FOR", "1.2.3.4"),
            ("X_Forwarded_For", "6.6.6.6"),
            ("X-Forwarded-Host", "evil"),
            ("Forwarded", "for=6.6.6.6"),
            ("X-Forwarded-Proto", "HTTPS"),
        ];
        let (taken, https) = apply(&policy, &fields, true).unwrap();
        assert_eq!((taken, https), (vec!["x-forwarded-FOR".into(), "X-Forwarded-Proto".into()], Some(true)));
        assert_eq!(apply(&policy, &fields, false), Ok((vec![], None)));
        assert_eq!(apply(&policy, &[("X-Forwarded-Ssl", "off"), fields[4]], true), Err(400));
        assert_eq!(apply(&policy, &[("X-Forwarded-For", "rubbish")], true), Err(400));
        let silent = ForwardingPolicy { forwarded_fields: vec![ForwardedField::For], ..usual() };
        assert_eq!(
            apply(&silent, &fields[4..], true),
            Ok((vec![], None)),
            "a field that is not listed has no meaning"
        );
    }

    #[test]
    fn the_script_name_is_removed_up_to_a_slash() {
        let policy = ForwardingPolicy { root: "/root".into(), ..usual() };
        let cut = |script: Option<&'static str>, path| {
            let info = ForwardedInfo { script: script.map(str::as_bytes), ..ForwardedInfo::default() };
            info.split_script_name(&policy, path).map_err(|refused| refused.status)
        };
        for (script, path, parts) in [
            (None, "/root/a", Ok(("/root", "/a"))),
            (None, "/root", Ok(("/root", ""))),
            (None, "/", Err(500)),
            (Some("/shop"), "/shop/root", Ok(("/shop", "/root"))),
            (Some("/shop/"), "/shop/", Ok(("/shop", "/"))),
            (Some("/shop"), "/shopping", Err(500)),
            (Some("/shop"), "/Shop/", Err(500)),
            (Some("shop"), "/shop", Err(500)),
            (Some("/"), "/a", Ok(("", "/a"))),
            (Some(""), "*", Ok(("", "*"))),
        ] {
            let parts = parts.map(|(script, rest): (&str, &str)| (script.as_bytes(), rest.as_bytes()));
            assert_eq!(cut(script, path.as_bytes()), parts, "{script:?} {path}");
        }
    }

    #[test]
    fn a_port_is_separated_from_its_host() {
        for (authority, host, port) in [
            ("a", "a", None),
            ("a:", "a", None),
            ("a:81", "a", Some("81")),
            ("[::1]", "[::1]", None),
            ("[::1]:81", "[::1]", Some("81")),
        ] {
            assert_eq!(
                split_port(authority.as_bytes()),
                (host.as_bytes(), port.map(str::as_bytes)),
                "{authority}"
            );
        }
    }
}
