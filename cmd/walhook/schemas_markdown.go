package main

import (
	"fmt"
	"strings"

	"walhook/schemas/catalog"
)

// schemasMarkdown is the page for account users.
func schemasMarkdown(catalog *catalog.Catalog) string {
	var b strings.Builder
	b.WriteString(`# Web hooks

*Made by ` + "`walhook schemas`" + ` from the catalog.*

What you can be told of, and what a body holds. How a request looks, how to check its signature and what to answer is in [RECEIVERS.md](RECEIVERS.md); how to create webhooks is in [API.md](API.md).

Your account's own ` + "`web_hook_url`" + ` gets the **record feed** and **results**. A webhook that you create through the API gets what its ` + "`hook`" + ` names: ` + "`records`" + ` for the record feed, ` + "`all`" + ` for every event, or an event or a group of events below.

## The record feed

    {"type":"update","schema":"dids","data":"{\"id\":42,…}"}

` + "`type`" + ` is ` + "`insert`, `update` or `delete`" + `. ` + "`data`" + ` is a string that holds a JSON object with these fields, as far as the change tells them:

| schema | fields |
|---|---|
`)
	descriptions := catalog.Describe()
	for i := range descriptions {
		if d := &descriptions[i]; d.Record {
			fmt.Fprintf(&b, "| `%s` | %s |\n", d.Name, fieldNames(&d.Forms[0]))
		}
	}
	b.WriteString(`
A webhook may pick schemas (` + "`schemas`" + `) and types (` + "`types`" + `). With ` + "`format: json`" + ` its ` + "`data`" + ` is an object instead of a string.

## Results

Work that finishes later reports without ` + "`data`" + `:

    {"type":"update","schema":"sms_enablement","status":"error","verbose":"already provisioned"}

## Events

A body holds the fields in this order. *Form* bodies are ` + "`application/x-www-form-urlencoded`" + `, the others JSON, unless the webhook's ` + "`format`" + ` says otherwise. A webhook with ` + "`http_verb: get`" + ` gets the fields in the query. ` + "`custom_data`" + ` is merged last.
`)
	for i := range descriptions {
		if d := &descriptions[i]; !d.Record {
			writeEvent(&b, d)
		}
	}
	return b.String()
}

func fieldNames(form *catalog.Form) string {
	names := make([]string, len(form.Fields))
	for i := range form.Fields {
		names[i] = form.Fields[i].Name
	}
	return strings.Join(names, " ")
}

func writeEvent(b *strings.Builder, d *catalog.Description) {
	fmt.Fprintf(b, "\n### `%s`\n\n%s", d.Name, d.About)
	if d.Format == "form" {
		b.WriteString(" *Form.*")
	}
	b.WriteString("\n")
	var facts []string
	if len(d.Groups) > 0 {
		facts = append(facts, "Also part of `"+strings.Join(d.Groups, "`, `")+"`.")
	}
	if len(d.Targets) > 0 {
		facts = append(facts, "A webhook can be bound to: "+strings.Join(d.Targets, ", ")+".")
	}
	if d.Counted {
		facts = append(facts, "With `delivery: daily` the counts of a day are sent at its end.")
	}
	if d.Extra {
		facts = append(facts, "What else the event holds follows the fields.")
	}
	if len(facts) > 0 {
		b.WriteString("\n" + strings.Join(facts, " ") + "\n")
	}
	for i := range d.Forms {
		writeForm(b, &d.Forms[i])
	}
}

func writeForm(b *strings.Builder, form *catalog.Form) {
	if form.If != "" {
		fmt.Fprintf(b, "\nWhere `%s` is `%s`:\n", form.Key, form.If)
	}
	b.WriteString("\n| field | is |\n|---|---|\n")
	for i := range form.Fields {
		f := &form.Fields[i]
		about := strings.TrimSuffix(f.About, ".")
		if values := valuesOf(f); values != "" {
			if about != "" {
				about += ": "
			}
			about += values
		}
		fmt.Fprintf(b, "| `%s` | %s |\n", f.Name, about)
	}
}

func valuesOf(f *catalog.FieldDescription) string {
	var values []string
	for _, v := range f.Values {
		values = append(values, "`"+v.Text+"`")
	}
	return strings.Join(values, " or ")
}
