/** The inspector's page: bundled into one script and one style, which the Nuxt module serves. */
import { createApp } from 'vue'
import App from './App.vue'
import './style.css'

createApp(App).mount('#app')
