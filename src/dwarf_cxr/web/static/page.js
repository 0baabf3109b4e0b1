/* What every page needs: changes that htmx sends carry the page's token. */

export const formToken = document.querySelector('meta[name="csrf-token"]').content;

document.addEventListener("htmx:configRequest", (event) => {
  event.detail.headers["X-CSRF-Token"] = formToken;
});
