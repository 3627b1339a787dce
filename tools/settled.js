// Whether a page of the console stands still: every chart is drawn or says why not, and nothing is being fetched.
// Shared by the pictures of the documents and the tests.
() => !document.querySelector("[aria-busy=true], .htmx-request, [hx-trigger=load] > .hint:only-child")
  && [...document.querySelectorAll("[data-chart], [data-chart-from]")]
    .every((one) => one.querySelector("canvas") || one.dataset.drawn === "told")
