//! A report as one page that a manager can read: nothing is loaded from elsewhere, no script runs, and it prints.

use std::fmt::{self, Write as _};

use keymoat_detect::Severity;

use super::summary::{Counts, day, moment, thousands};
use super::{Commit, Report, Reported, Spot};

impl Report {
    /// One page that needs nothing else.
    pub fn to_html(&self) -> String {
        let mut page = String::with_capacity(32 << 10);
        // Writing to a string cannot fail.
        let _ = self.write_html(&mut page);
        page
    }

    fn write_html(&self, page: &mut String) -> fmt::Result {
        let names: Vec<&str> = self.targets.iter().map(|target| target.name.as_str()).collect();
        let names = names.join(", ");
        write!(
            page,
            "{HEAD}<title>Exposed keys: {}</title>\n<style>\n{STYLE}</style>\n</head>\n<body>\n",
            Text(&names)
        )?;
        write!(
            page,
            "<header>\n<p class=\"kicker\">Exposed keys</p>\n<h1>{}</h1>\n<p class=\"when\">{} · Keymoat {}</p>\n</header>\n<main>\n",
            Text(&names),
            day(self.made),
            Text(&self.version),
        )?;
        writeln!(page, "<p class=\"summary\">{}</p>", Text(&self.summary()))?;
        self.write_public(page)?;
        self.write_tiles(page)?;
        let (urgent, rest): (Vec<&Reported>, Vec<&Reported>) = self
            .findings
            .iter()
            .partition(|finding| !finding.is_dead() && !finding.is_test() && finding.level > Severity::Low);
        if !urgent.is_empty() {
            write_order(page, &urgent)?;
            page.push_str("<section>\n<h2>Each key</h2>\n");
            for (number, finding) in (1..).zip(&urgent) {
                write_card(page, number, finding)?;
            }
            page.push_str("</section>\n");
        }
        if !rest.is_empty() {
            write_rest(page, &rest, urgent.len())?;
        }
        if !self.is_clean() {
            page.push_str(WHY);
        }
        self.write_scope(page)?;
        page.push_str("</main>\n");
        write!(
            page,
            "<footer>No key stands on this page: what is shown is its beginning and last characters at most. Made {}.</footer>\n</body>\n</html>\n",
            moment(self.made)
        )
    }

    fn write_public(&self, page: &mut String) -> fmt::Result {
        if !self.findings.iter().any(|finding| finding.looks_public) {
            return Ok(());
        }
        let public =
            self.targets.iter().flat_map(|target| &target.remotes).filter(|remote| remote.looks_public());
        let public: Vec<String> = public.map(ToString::to_string).collect();
        writeln!(
            page,
            "<p class=\"public\">Looks public: pushed to {}, a host where most repositories may be read by anybody. If this one may, take its keys for known.</p>",
            Text(&public.join(", "))
        )
    }

    fn write_tiles(&self, page: &mut String) -> fmt::Result {
        page.push_str("<ul class=\"tiles\">\n");
        for (name, count) in Counts::of(&self.findings).named() {
            let quiet = if count == 0 { " none" } else { "" };
            let said = match name {
                "test" => "test keys",
                // Known only where providers were asked.
                "dead" if count == 0 => continue,
                name => name,
            };
            writeln!(page, "<li class=\"{name}{quiet}\"><b>{}</b> {said}</li>", thousands(count as u64))?;
        }
        page.push_str("</ul>\n");
        Ok(())
    }

    fn write_scope(&self, page: &mut String) -> fmt::Result {
        page.push_str("<section>\n<h2>What was looked into</h2>\n<table>\n<tbody>\n");
        for target in &self.targets {
            let read: Vec<String> = target
                .read
                .iter()
                .filter(|(_, number)| *number > 0)
                .map(|(what, number)| match *what {
                    "bytes" => super::summary::size(*number),
                    what => format!("{} {what}", thousands(*number)),
                })
                .collect();
            let remotes: Vec<String> = target.remotes.iter().map(ToString::to_string).collect();
            let pushed =
                if remotes.is_empty() { String::new() } else { format!("pushed to {}", remotes.join(", ")) };
            writeln!(
                page,
                "<tr><td class=\"path\">{}</td><td>{}</td><td>{}</td></tr>",
                Text(&target.name),
                Text(&read.join(", ")),
                Text(&pushed)
            )?;
        }
        page.push_str("</tbody>\n</table>\n");
        if self.known > 0 {
            writeln!(page, "<p>{} findings are known and left out (baseline).</p>", thousands(self.known))?;
        }
        write_list(page, "Should be changed as well", &self.warnings)?;
        if self.skipped.total > 0 {
            let mut lines: Vec<String> =
                self.skipped.list.iter().take(LISTED).map(|(what, why)| format!("{what} {why}")).collect();
            let more = self.skipped.total - lines.len() as u64;
            if more > 0 {
                lines.push(format!("and {} more", thousands(more)));
            }
            write_list(page, "Could not be read", &lines)?;
        }
        page.push_str("</section>\n");
        Ok(())
    }
}

fn write_list(page: &mut String, title: &str, lines: &[String]) -> fmt::Result {
    if lines.is_empty() {
        return Ok(());
    }
    write!(page, "<h3>{title}</h3>\n<ul>\n")?;
    lines.iter().try_for_each(|line| writeln!(page, "<li>{}</li>", Prose(line)))?;
    page.push_str("</ul>\n");
    Ok(())
}

/// All on one screen, in the order in which to fix them.
fn write_order(page: &mut String, findings: &[&Reported]) -> fmt::Result {
    page.push_str("<section>\n<h2>In which order to fix</h2>\n<table class=\"order\">\n<thead><tr><th>#</th><th>How bad</th><th>What</th><th>Where</th><th>Standing</th><th>Since</th></tr></thead>\n<tbody>\n");
    for (number, finding) in (1..).zip(findings) {
        let spot = finding.spots.first();
        let more = match finding.spots.len() {
            0 | 1 => String::new(),
            all => format!("<span class=\"more\"> and {} more</span>", thousands(all as u64 - 1)),
        };
        writeln!(
            page,
            "<tr><td>{number}</td><td>{}</td><td><a href=\"#f{number}\">{}</a><br><code>{}</code></td><td class=\"path\">{}{more}</td><td>{}</td><td class=\"day\">{}</td></tr>",
            Badge(finding),
            Text(&finding.title),
            Text(&finding.mask),
            Text(&spot.map(Spot::place).unwrap_or_default()),
            Text(&spot.map(Spot::standing).unwrap_or_default()),
            finding.since.map(day).unwrap_or_default(),
        )?;
    }
    page.push_str("</tbody>\n</table>\n</section>\n");
    Ok(())
}

fn write_card(page: &mut String, number: usize, finding: &Reported) -> fmt::Result {
    write!(
        page,
        "<article id=\"f{number}\" class=\"{}\">\n<h3><span class=\"number\">{number}</span> {}{} {} <code>{}</code></h3>\n",
        finding.level,
        Badge(finding),
        if finding.looks_public { " <span class=\"badge public\">looks public</span>" } else { "" },
        Text(&finding.title),
        Text(&finding.mask),
    )?;
    if let Some(liveness) = &finding.liveness {
        writeln!(page, "<p class=\"check\">Its provider says: {}</p>", Text(&liveness.to_string()))?;
    }
    let (shown, folded) = finding.spots.split_at(finding.spots.len().min(SPOTS_SHOWN));
    write_spots(page, shown)?;
    if !folded.is_empty() {
        writeln!(page, "<details><summary>{} more places</summary>", thousands(folded.len() as u64))?;
        write_spots(page, folded)?;
        page.push_str("</details>\n");
    }
    page.push_str("<div class=\"fix\">\n");
    writeln!(
        page,
        "<p><b>First</b> {}</p>\n<p><b>Then</b> {}</p>",
        Prose(&finding.fix.change),
        Prose(&finding.fix.keep)
    )?;
    if let Some(command) = &finding.fix.command {
        writeln!(page, "<pre>{}</pre>", Text(command))?;
    }
    write_link(page, finding)?;
    page.push_str("</div>\n</article>\n");
    Ok(())
}

fn write_link(page: &mut String, finding: &Reported) -> fmt::Result {
    // The catalogue has `https://` addresses only; a user's own one is checked as well.
    match finding.fix.link.as_deref().filter(|link| link.starts_with("https://")) {
        Some(link) => writeln!(page, "<p><a href=\"{0}\" rel=\"noreferrer\">{0}</a></p>", Text(link)),
        None => Ok(()),
    }
}

fn write_spots(page: &mut String, spots: &[Spot]) -> fmt::Result {
    page.push_str("<table class=\"places\">\n<thead><tr><th>Where</th><th>Standing</th><th>Since</th><th>Commit</th></tr></thead>\n<tbody>\n");
    for spot in spots {
        let encoding = match spot.encoding {
            keymoat_detect::Encoding::Plain => String::new(),
            other => format!(" ({})", other.as_str()),
        };
        write!(
            page,
            "<tr><td class=\"path\">{}{}</td><td>{}</td>",
            Text(&spot.place()),
            Text(&encoding),
            Text(&spot.standing())
        )?;
        match &spot.first {
            Some(commit) => write_commit(page, commit)?,
            None => page.push_str("<td></td><td></td>"),
        }
        page.push_str("</tr>\n");
    }
    page.push_str("</tbody>\n</table>\n");
    Ok(())
}

fn write_commit(page: &mut String, commit: &Commit) -> fmt::Result {
    let id = commit.id.get(..SHORT_ID).unwrap_or(&commit.id);
    write!(
        page,
        "<td class=\"day\">{}</td><td><code>{}</code> {}<br><span class=\"more\">{}</span></td>",
        day(commit.date),
        Text(id),
        Text(&commit.author),
        Text(&commit.title)
    )
}

/// What is not urgent: a row each.
fn write_rest(page: &mut String, findings: &[&Reported], before: usize) -> fmt::Result {
    page.push_str("<section>\n<h2>Less urgent</h2>\n<p>Test keys, keys that are dead, and values that only their names make suspicious.</p>\n<table class=\"order\">\n<thead><tr><th>#</th><th>How bad</th><th>What</th><th>Where</th><th>Standing</th><th>Since</th></tr></thead>\n<tbody>\n");
    for (number, finding) in (before + 1..).zip(findings) {
        let places: Vec<String> = finding.spots.iter().take(SPOTS_SHOWN).map(Spot::place).collect();
        let more = finding.spots.len() - places.len();
        let more = if more > 0 {
            format!(" <span class=\"more\">and {} more</span>", thousands(more as u64))
        } else {
            String::new()
        };
        let standing = finding.spots.first().map(Spot::standing).unwrap_or_default();
        let said = finding.liveness.as_ref().map_or_else(String::new, |liveness| {
            format!("<br><span class=\"more\">{}</span>", Text(&liveness.to_string()))
        });
        writeln!(
            page,
            "<tr><td>{number}</td><td>{}</td><td>{}<br><code>{}</code>{said}</td><td class=\"path\">{}{more}</td><td>{}</td><td class=\"day\">{}</td></tr>",
            Badge(finding),
            Text(&finding.title),
            Text(&finding.mask),
            Text(&places.join(", ")),
            Text(&standing),
            finding.since.map(day).unwrap_or_default(),
        )?;
    }
    page.push_str("</tbody>\n</table>\n</section>\n");
    Ok(())
}

/// The level as a word in its colour.
struct Badge<'a>(&'a Reported);

impl fmt::Display for Badge<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let heading = self.0.heading();
        write!(f, "<span class=\"badge {heading}\">{heading}</span>")?;
        if self.0.is_active() {
            f.write_str(" <span class=\"badge active\">active</span>")?;
        }
        Ok(())
    }
}

/// Text in a page: nothing in it is markup.
struct Text<'a>(&'a str);

impl fmt::Display for Text<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.chars().try_for_each(|c| match c {
            '&' => f.write_str("&amp;"),
            '<' => f.write_str("&lt;"),
            '>' => f.write_str("&gt;"),
            '"' => f.write_str("&quot;"),
            '\'' => f.write_str("&#39;"),
            other => f.write_char(other),
        })
    }
}

/// Sentences, in which what stands between backticks is code.
struct Prose<'a>(&'a str);

impl fmt::Display for Prose<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let parts: Vec<&str> = self.0.split('`').collect();
        parts.iter().enumerate().try_for_each(|(at, part)| match at % 2 {
            1 if at + 1 < parts.len() => write!(f, "<code>{}</code>", Text(part)),
            1 => write!(f, "`{}", Text(part)),
            _ => Text(part).fmt(f),
        })
    }
}

/// The policy keeps a page that was tampered with on the way from calling anybody.
const HEAD: &str = "<!doctype html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n<meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n<meta name=\"color-scheme\" content=\"light dark\">\n<meta name=\"robots\" content=\"noindex\">\n<meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; style-src 'unsafe-inline'\">\n";
const STYLE: &str = include_str!("page.css");
const WHY: &str = "<section>\n<h2>Why changing the key comes first</h2>\n<p>Whoever has a copy of the repository, the dump or the log has the key. Taking it out of a file, or out of the whole history, \
does not take it out of those copies. Only a changed key is worth nothing to them. So: make a new key, let the programs use it, revoke the old one, look at the provider whether somebody else has used it, \
and clean up last.</p>\n</section>\n";

/// More places of one value are folded.
const SPOTS_SHOWN: usize = 5;
/// More things that could not be read tell nothing new.
const LISTED: usize = 50;
/// As many as git shows in a large repository.
const SHORT_ID: usize = 10;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_from_elsewhere_is_markup() {
        let text = Text("<script>alert('x & \"y\"')</script>").to_string();
        assert_eq!(text, "&lt;script&gt;alert(&#39;x &amp; &quot;y&quot;&#39;)&lt;/script&gt;");
        for (text, expected) in [
            ("say `a<b` or `c`", "say <code>a&lt;b</code> or <code>c</code>"),
            ("an odd ` mark", "an odd ` mark"),
            ("", ""),
        ] {
            assert_eq!(Prose(text).to_string(), expected);
        }
    }
}
