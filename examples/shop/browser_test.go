package main

import (
	"context"
	"flag"
	"os"
	"testing"
	"time"

	"github.com/chromedp/cdproto/cdp"
	cdppage "github.com/chromedp/cdproto/page"
	"github.com/chromedp/chromedp"
)

var picture = flag.String("picture", "", "`file` to write a picture of the shop to, as the README shows it")

// openBrowser starts a headless Chromium and returns a function that opens a tab in it. All tabs belong to one shopper.
func openBrowser(t *testing.T) func() context.Context {
	t.Helper()
	options := append(chromedp.DefaultExecAllocatorOptions[:], chromedp.UserDataDir(t.TempDir()), chromedp.WindowSize(760, 620))
	if os.Getuid() == 0 {
		options = append(options, chromedp.NoSandbox) // Chromium does not start as root with it
	}
	ctx, cancel := context.WithTimeout(t.Context(), 2*deadline)
	t.Cleanup(cancel)
	ctx, cancel = chromedp.NewExecAllocator(ctx, options...)
	t.Cleanup(cancel)
	first, cancel := chromedp.NewContext(ctx)
	t.Cleanup(cancel) // ends the browser, too
	run(first, t)
	return func() context.Context {
		tab, cancel := chromedp.NewContext(first)
		t.Cleanup(cancel)
		return tab
	}
}

func run(tab context.Context, t *testing.T, steps ...chromedp.Action[chromedp.Void]) {
	t.Helper()
	if err := chromedp.Do(tab, steps...); err != nil {
		t.Fatal(err)
	}
}

// click clicks on the element that the selector finds, and brings the tab to the front.
func click(tab context.Context, t *testing.T, selector string) {
	t.Helper()
	front := chromedp.Func(func(ctx context.Context, at *chromedp.Target) error {
		_, err := cdp.Call(ctx, at, cdppage.BringToFront, cdp.Empty{})
		return err
	})
	run(tab, t, front, chromedp.Click(selector))
}

// until waits until the page, or one that follows it, fulfils a condition of JavaScript.
func until(tab context.Context, t *testing.T, condition string) {
	t.Helper()
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for end := time.Now().Add(deadline); ; <-tick.C {
		ok, err := chromedp.Run(tab, chromedp.Evaluate[bool]("!!("+condition+")"))
		if ok {
			return
		}
		if time.Now().After(end) || tab.Err() != nil { // between two pages there is an error
			text, _ := chromedp.Run(tab, chromedp.Text("body"))
			t.Fatalf("%s: %v; the page is\n%s", condition, err, text)
		}
	}
}

// A shopper uses a cart in two tabs at once: clicks twice, and adds in one tab while the other one pays.
func TestBrowser(t *testing.T) {
	_, sidecar := startSidecar(t, "--backend", "memory")
	address, _ := startShop(t, sidecar)
	open := openBrowser(t)
	one, other := open(), open()
	for _, tab := range []context.Context{one, other} {
		run(tab, t, chromedp.Navigate("http://"+address), chromedp.WaitVisible("#cart"))
	}
	// in is the condition that the cart, as the page shows it, has just these items.
	in := func(rows string) string {
		return `[...document.querySelectorAll("#cart tbody tr")].map(r => r.dataset.item + r.cells[2].textContent).join() === "` + rows + `"`
	}

	// Both at once, so that the second click is not too late to be the same.
	run(one, t, chromedp.Evaluate[chromedp.Void](`{ const add = document.querySelector('[aria-label="Add Mug"]'); add.click(); add.click() }`))
	// Both clicks have been answered.
	until(one, t, `performance.getEntriesByType("resource").filter(r => r.name.endsWith("/items")).length === 2`)
	until(one, t, in("mug1"))
	until(other, t, in("mug1")) // it was not loaded again
	if *picture != "" {
		click(one, t, `[aria-label="Add Tea spoon"]`)
		until(other, t, in("mug1,spoon1"))
		shot, err := chromedp.Run(other, chromedp.FullScreenshot(100))
		if err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(*picture, shot, 0o644); err != nil {
			t.Fatal(err)
		}
		click(one, t, `[aria-label="Remove Tea spoon"]`)
		until(other, t, in("mug1"))
	}

	click(one, t, `#cart button.main`)
	until(one, t, `document.querySelector('[value="ORDERED"]')`)
	click(other, t, `[aria-label="Add Teapot"]`)
	until(other, t, in("mug1,teapot1"))
	click(one, t, `[value="ORDERED"]`)
	until(one, t, `document.querySelector(".good")`)
	until(other, t, in("teapot1")) // what was added meanwhile is there, what was paid for is not
	click(one, t, `a[href="/"]`)
	until(one, t, in("teapot1"))

	// The same again at a later time is another click.
	click(one, t, `[aria-label="Add Tray"]`)
	until(one, t, in("teapot1,tray1"))
	until(one, t, `!document.querySelector('form.add:has([value="tray"])').renewing`)
	click(one, t, `[aria-label="Add Tray"]`)
	until(other, t, in("teapot1,tray2"))
}
