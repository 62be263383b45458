//! The names that people have for cells of Odoo's and Django's tables: where to click, rather than where it is stored.

use keymoat_detect::Catalogue;

use crate::rows::Cell;

/// What people call a cell, where it is one that they know.
pub(crate) fn name_of(catalogue: &Catalogue, cell: &Cell) -> Option<String> {
    if cell.table == "ir_config_parameter"
        && let Some(setting) = &cell.setting
    {
        return Some(format!("Odoo › System Parameters › `{setting}`"));
    }
    let column = format!("{}.{}", cell.table, cell.column);
    let of_odoo = || catalogue.providers().iter().flat_map(|provider| &provider.odoo.columns);
    let of_django = || catalogue.providers().iter().flat_map(|provider| &provider.django.columns);
    if of_odoo().chain(of_django()).any(|place| place.name == column) {
        let company = cell.company.as_ref().map(|company| format!(" (company {company})"));
        return Some(column + &company.unwrap_or_default());
    }
    let (_, known) = TABLES.iter().find(|(table, _)| *table == cell.table || *table == column)?;
    Some((*known).to_owned())
}

/// Tables and columns where keys lie that nobody put there as keys (`docs/scan-sources.md`).
const TABLES: [(&str, &str); 17] = [
    ("res_config_settings", "Odoo › Settings, the copy that saving them leaves behind for a while"),
    ("ir_logging", "Odoo › Technical › Logging"),
    ("ir_act_server", "Odoo › Technical › Server Actions"),
    ("ir_actions_server_history", "Odoo › Technical › Server Actions, their history"),
    ("ir_ui_view", "Odoo › Technical › Views"),
    ("ir_attachment", "Odoo › Technical › Attachments"),
    ("ir_default", "Odoo › Technical › User-defined Defaults"),
    ("ir_mail_server", "Odoo › Technical › Outgoing Mail Servers"),
    ("fetchmail_server", "Odoo › Technical › Incoming Mail Servers"),
    ("iap_account", "Odoo › Technical › IAP Accounts"),
    ("mail_message", "Odoo › Discuss and the messages on records"),
    ("mail_mail", "Odoo › Technical › Emails"),
    ("mail_tracking_value", "Odoo › the history of fields on records"),
    ("res_company_ldap", "Odoo › Settings › LDAP Server"),
    ("django_admin_log", "Django › the history in the admin"),
    ("django_session", "Django › sessions"),
    ("constance_constance", "Django › Constance settings"),
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cells_have_names_for_people() {
        let cell = |table: &str, column: &str, company: Option<&str>, setting: Option<&str>| Cell {
            table: table.to_owned(),
            column: column.to_owned(),
            row: "id 1".to_owned(),
            company: company.map(str::to_owned),
            setting: setting.map(str::to_owned),
        };
        for (cell, expected) in [
            (
                cell("ir_config_parameter", "value", None, Some("stripe.secret_key")),
                Some("Odoo › System Parameters › `stripe.secret_key`"),
            ),
            (
                cell("payment_provider", "stripe_secret_key", Some("2"), None),
                Some("payment_provider.stripe_secret_key (company 2)"),
            ),
            (cell("djstripe_apikey", "secret", None, None), Some("djstripe_apikey.secret")),
            (cell("ir_logging", "message", None, None), Some("Odoo › Technical › Logging")),
            (cell("shop_order", "note", Some("2"), None), None),
        ] {
            assert_eq!(name_of(Catalogue::builtin(), &cell).as_deref(), expected);
        }
    }
}
