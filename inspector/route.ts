/** Where the page is: `#/runs/<flow>/<id>`, `#/jobs/<queue>/<id>`, `#/consumers/<name>`. */
import { ref } from 'vue'

const read = () => location.hash.replace(/^#\/?/, '').split('/').filter(Boolean).map((part) => {
  try {
    return decodeURIComponent(part)
  }
  catch {
    return part
  }
})

export const route = ref<string[]>(read())
addEventListener('hashchange', () => route.value = read())

export function go(...parts: string[]) {
  location.hash = `#/${parts.map(encodeURIComponent).join('/')}`
}
