"""The commands of ``tollmesh``, assembled."""

from __future__ import annotations

import typer

from services.cli import accounts, audit, billing, credit, export, files, importing, keys, local

app = typer.Typer(
    name="tollmesh",
    help="Serve files that live on a blockchain from many edges, and bill every byte once.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
)
app.command()(local.up)
app.command()(local.down)
app.command()(local.demo)
app.add_typer(accounts.app, name="account")
app.add_typer(keys.app, name="key")
app.command()(credit.grant)
app.command()(credit.balance)
app.command()(credit.ledger)
app.command()(audit.audit)
app.add_typer(billing.app, name="credit")
app.command()(export.export)
app.command("import")(importing.import_)
app.command()(files.publish)
app.command()(files.get)
app.command()(files.status)
app.command()(files.cid)
